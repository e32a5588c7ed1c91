"""What the engine needs of llama.cpp. The real one is in ``native_context.py``; tests of the engine bring their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aiqueue.llama.prefixes import Tokens
from aiqueue.llama.requests import Sampling


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that ``sequence`` reads in a step, the first at position ``start``.

    ``scores``: the next token is to be chosen after the last of these.
    """

    sequence: int
    start: int
    tokens: Tokens
    scores: bool


class Sampler(Protocol):
    """Chooses the tokens of one answer."""

    def next(self, row: int) -> int:
        """Return the next token by the scores of ``row``: the chunks of the last step with scores, counted from 0."""
        ...

    def close(self) -> None:
        """Free its memory."""
        ...


class Backend(Protocol):
    """One model and one context of it, with a cache of ``cells`` for ``sequences`` sequences."""

    cells: int
    sequences: int
    batch_tokens: int  #: that a step carries
    can_share: bool  #: a sequence may begin with another's cells

    def decode(self, chunks: Sequence[Chunk]) -> None:
        """Read the chunks. Raises RuntimeError if llama.cpp can't: what the cache then holds is unknown."""
        ...

    def sampler(self, sampling: Sampling) -> Sampler:
        """Return a new sampler. Raises ValueError for a grammar that can't be followed."""
        ...

    def share(self, source: int, target: int, count: int) -> None:
        """Let the empty sequence ``target`` begin with the first ``count`` tokens of ``source``."""
        ...

    def drop(self, sequence: int, *, but: int = 0) -> None:
        """Make ``sequence`` empty, except for its first ``but`` tokens (where sequences can be shared)."""
        ...

    def clear(self) -> None:
        """Make all sequences empty."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the token's text; one that only marks something has none."""
        ...

    def is_end(self, token: int) -> bool:
        """Tell whether ``token`` ends an answer."""
        ...
