"""The batch that llama.cpp reads in a step, filled by numpy: a loop over tokens would cost more than sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from aiqueue.llama.backend import Chunk


class NativeBatch:
    """Room for ``capacity`` tokens, each of one sequence."""

    def __init__(self, capacity: int) -> None:
        self.handle: Any = llama_cpp.llama_batch_init(capacity, 0, 1)
        as_array = np.ctypeslib.as_array
        self._tokens = as_array(self.handle.token, (capacity,))
        self._positions = as_array(self.handle.pos, (capacity,))
        self._scores = as_array(self.handle.logits, (capacity,))
        as_array(self.handle.n_seq_id, (capacity,))[:] = 1
        # One pointer a token, each to a cell of its own: one array over all cells, and the pointers into it.
        self._sequences = np.zeros(capacity, np.int32)
        start, size = self._sequences.ctypes.data, self._sequences.itemsize
        pointers = np.ctypeslib.as_array(_addresses(self.handle.seq_id, capacity))
        self._own_pointers = pointers[:capacity].copy()  # to free what was allocated for them
        self._pointers = pointers
        pointers[:capacity] = start + size * np.arange(capacity, dtype=np.uintp)

    def fill(self, chunks: Sequence[Chunk], *, all_scores: bool = False) -> list[int]:
        """Put the chunks in, in order; return the place in the batch of each chunk's last token, if it has scores."""
        at, places = 0, []
        for chunk in chunks:
            end = at + len(chunk.tokens)
            self._tokens[at:end] = chunk.tokens
            self._positions[at:end] = np.arange(chunk.start, chunk.start + end - at)
            self._sequences[at:end] = chunk.sequence
            self._scores[at:end] = all_scores
            if chunk.scores:
                self._scores[end - 1] = True
                places.append(end - 1)
            at = end
        self.handle.n_tokens = at
        return places

    def close(self) -> None:
        """Free its memory."""
        self._pointers[: len(self._own_pointers)] = self._own_pointers
        llama_cpp.llama_batch_free(self.handle)


def _addresses(pointers: Any, count: int) -> Any:
    import ctypes

    return ctypes.cast(pointers, ctypes.POINTER(ctypes.c_size_t * count)).contents
