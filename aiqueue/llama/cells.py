"""Which cells of the key/value cache are in use: llama.cpp does not say, and aborts or fails when they run out.

All sequences share one pool of cells, one per token. Sequences with a common beginning share the cells of it: a cell
is free when the last sequence that has it lets go.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class CellLedger:
    """Book of the cells of up to ``sequences`` sequences. The numbers in it are its own, not llama.cpp's."""

    def __init__(self, cells: int, sequences: int) -> None:
        self.cells = cells
        self._holders = np.zeros(cells, np.int32)
        self._free = np.arange(cells, dtype=np.int32)
        self._top = cells  # of the stack of free cells
        self._of = np.empty((sequences, cells), np.int32)
        self._lengths = [0] * sequences

    @property
    def free(self) -> int:
        """Cells that nobody has."""
        return self._top

    def length(self, sequence: int) -> int:
        """Return how many tokens ``sequence`` has in cells."""
        return self._lengths[sequence]

    def take(self, sequence: int, count: int) -> None:
        """Give ``sequence`` ``count`` free cells more. Raises ValueError if there are not so many."""
        if count > self._top:
            raise ValueError(f"{count} cells wanted, {self._top} are free")
        length = self._lengths[sequence]
        taken = self._free[self._top - count : self._top]
        self._top -= count
        self._of[sequence, length : length + count] = taken
        self._holders[taken] = 1
        self._lengths[sequence] = length + count

    def share(self, source: int, target: int, count: int) -> None:
        """Let ``target``, which has none, have the first ``count`` cells of ``source`` too."""
        if self._lengths[target] or count > self._lengths[source]:
            raise ValueError(f"can't share {count} of {self._lengths[source]} cells with {self._lengths[target]}")
        shared = self._of[source, :count]
        self._of[target, :count] = shared
        self._holders[shared] += 1
        self._lengths[target] = count

    def drop(self, sequence: int, *, but: int = 0) -> None:
        """Take its cells from ``sequence``, except the first ``but`` of them."""
        held = self._of[sequence, but : self._lengths[sequence]]
        self._holders[held] -= 1
        freed = held[self._holders[held] == 0]
        self._free[self._top : self._top + len(freed)] = freed
        self._top += len(freed)
        self._lengths[sequence] = min(but, self._lengths[sequence])

    def held_by(self, sequences: Iterable[int]) -> int:
        """Return how many cells these have together, each counted once."""
        held = np.zeros(self.cells, np.bool_)
        for sequence in sequences:
            held[self._of[sequence, : self._lengths[sequence]]] = True
        return int(held.sum())
