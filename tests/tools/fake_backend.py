"""A model made of arithmetic: the next token is a digest of all that its sequence has read.

So a sequence that is given another's tokens, misses one or reads one twice says something else. It keeps its own count
of cells and refuses what the real one would abort on.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from aiqueue.llama.backend import Chunk
from aiqueue.llama.requests import Sampling

VOCABULARY = 1_000
END = 0


def next_token(read: Sequence[int], seed: int = 0) -> int:
    """Return the token that follows ``read``; END about once in 40."""
    digest = zlib.crc32(b"%d," % seed + b",".join(b"%d" % token for token in read))
    return END if digest % 40 == 0 else 1 + digest % (VOCABULARY - 1)


def answer_alone(prompt: Sequence[int], *, most: int, seed: int = 0) -> list[int]:
    """Return what a request says that has the model to itself."""
    read, answer = list(prompt), list[int]()
    while len(answer) < most and (token := next_token(read, seed)) != END:
        answer.append(token)
        read.append(token)
    return answer


class FakeSampler:
    """Takes the model's token; it knows whether it was closed."""

    def __init__(self, backend: FakeBackend, seed: int) -> None:
        self._backend, self._seed = backend, seed
        backend.open_samplers += 1

    def next(self, row: int) -> int:
        return next_token(self._backend.scored[row], self._seed)

    def close(self) -> None:
        self._backend.open_samplers -= 1


class FakeBackend:
    """The engine's Backend, without llama.cpp."""

    def __init__(self, *, cells: int = 256, sequences: int = 8, batch_tokens: int = 32, can_share: bool = True) -> None:
        self.cells, self.sequences, self.batch_tokens, self.can_share = cells, sequences, batch_tokens, can_share
        self.steps: list[dict[int, int]] = []  #: tokens read by sequence, of each step
        self.scored: list[list[int]] = []
        self.open_samplers = 0
        self.fail_next: Exception | None = None
        self._read: dict[int, list[tuple[int, int]]] = {}  # sequence -> its (cell, token) pairs
        self._new_cell = 0

    @property
    def used(self) -> int:
        """Cells in use."""
        return len({cell for held in self._read.values() for cell, _ in held})

    def decode(self, chunks: Sequence[Chunk]) -> None:
        if self.fail_next:
            error, self.fail_next = self.fail_next, None
            raise error
        assert sum(len(chunk.tokens) for chunk in chunks) <= self.batch_tokens
        self.steps.append({chunk.sequence: len(chunk.tokens) for chunk in chunks})
        assert len(self.steps[-1]) == len(chunks), "a sequence twice in a step"
        self.scored = []
        for chunk in chunks:
            assert 0 <= chunk.sequence < self.sequences
            held = self._read.setdefault(chunk.sequence, [])
            assert chunk.start == len(held), f"sequence {chunk.sequence} has {len(held)}, not {chunk.start}"
            for token in chunk.tokens:
                self._new_cell += 1
                held.append((self._new_cell, int(token)))
            if chunk.scores:
                self.scored.append([token for _, token in held])
        assert self.used <= self.cells, f"{self.used} of {self.cells} cells"

    def sampler(self, sampling: Sampling) -> FakeSampler:
        if sampling.grammar:
            raise ValueError("no grammar here")
        return FakeSampler(self, sampling.seed)

    def share(self, source: int, target: int, count: int) -> None:
        assert self.can_share
        assert not self._read.get(target)
        assert 0 < count <= len(self._read[source])
        self._read[target] = self._read[source][:count]

    def drop(self, sequence: int, *, but: int = 0) -> None:
        self._read[sequence] = self._read.get(sequence, [])[:but]

    def clear(self) -> None:
        self._read.clear()

    def piece(self, token: int) -> bytes:
        return b"<%d>" % token

    def is_end(self, token: int) -> bool:
        return token == END
