"""Prompts, or beginnings of them, that the model has read already: those of running and of remembered sequences.

Remembered ones are forgotten in the order of their last use; pinned ones last of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

#: Below this it is not worth while: reading so few tokens costs about what sharing them does.
LEAST_SHARED = 16


def common_length(one: Tokens, other: Tokens) -> int:
    """Return how many tokens two texts have in common at their beginnings.

    >>> common_length(np.array([1, 2, 3], np.int32), np.array([1, 2, 4, 5], np.int32))
    2
    """
    shorter = min(len(one), len(other))
    different = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(different[0]) if len(different) else shorter


class Match(NamedTuple):
    """``sequence`` holds the first ``length`` tokens of a prompt; no match: length 0."""

    sequence: int
    length: int


NO_MATCH = Match(-1, 0)


@dataclass(slots=True)
class _Remembered:
    tokens: Tokens
    pinned: bool


class PrefixCache:
    """Sequences that have ended, kept for the beginnings that other prompts may share with them."""

    def __init__(self) -> None:
        self._kept: dict[int, _Remembered] = {}  # the one used last at the end

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def sequences(self) -> list[int]:
        """All that are kept, in the order in which they would be forgotten."""
        return sorted(self._kept, key=lambda sequence: self._kept[sequence].pinned)  # stable

    @property
    def unpinned(self) -> list[int]:
        """Those that are not pinned."""
        return [sequence for sequence, kept in self._kept.items() if not kept.pinned]

    def keep(self, sequence: int, tokens: Tokens, *, pinned: bool = False) -> list[int]:
        """Remember ``sequence``; return those that it makes superfluous, which are forgotten with this."""
        superfluous = [
            other
            for other, kept in self._kept.items()
            if not kept.pinned and common_length(kept.tokens, tokens) == len(kept.tokens)
        ]
        for other in superfluous:
            del self._kept[other]
        self._kept[sequence] = _Remembered(tokens, pinned)
        return superfluous

    def match(self, prompt: Tokens) -> Match:
        """Return the sequence that shares most with ``prompt``; finding it is no use yet (see ``touch``)."""
        best = NO_MATCH
        for sequence, kept in self._kept.items():
            length = common_length(kept.tokens, prompt)
            if length > best.length:
                best = Match(sequence, length)
        return best

    def touch(self, sequence: int) -> None:
        """Note that ``sequence`` was of use just now."""
        if kept := self._kept.pop(sequence, None):
            self._kept[sequence] = kept

    def forget_one(self, *, but: int = -1) -> int | None:
        """Forget the one to be forgotten next that is not ``but``; return it, or None if there is none."""
        for sequence in self.sequences:
            if sequence != but:
                del self._kept[sequence]
                return sequence
        return None

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
