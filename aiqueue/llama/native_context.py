"""A context of a model: the cache of its sequences, and the steps that fill it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from aiqueue.llama.backend import Chunk, Sampler
from aiqueue.llama.native_batch import NativeBatch
from aiqueue.llama.native_log import take_complaints
from aiqueue.llama.native_model import NativeModel, load_error
from aiqueue.llama.requests import Sampling
from aiqueue.llama.sampler import new_sampler

MOST_SEQUENCES = 256  #: llama.cpp's own limit
_FLASH_ATTENTION = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOptions:
    """Sizes of a context."""

    cells: int = 4_096
    sequences: int = 16
    batch_tokens: int = 512
    threads: int = 1
    flash_attention: bool | None = None  #: None: llama.cpp decides


class NativeContext:
    """The engine's Backend. One thread at a time."""

    def __init__(self, model: NativeModel, options: ContextOptions) -> None:
        """Make it. Raises ModelNotReady if there is no memory for it, BadModelFile if the model can't."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options.cells
        params.n_batch = params.n_ubatch = min(options.batch_tokens, options.cells)
        params.n_seq_max = min(options.sequences, MOST_SEQUENCES)
        params.n_outputs_max = params.n_seq_max  # else it keeps room for the scores of every token of a batch
        params.n_threads = params.n_threads_batch = options.threads
        params.flash_attn_type = _FLASH_ATTENTION[options.flash_attention]
        params.kv_unified = True  # one pool of cells; without it sharing part of a sequence ends the process
        params.no_perf = True
        take_complaints()
        self._context: Any = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._context:
            raise load_error(f"model file {model.path} gets no context of {options.cells} tokens", take_complaints())
        self._model = model
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self.cells = int(llama_cpp.llama_n_ctx(self._context))
        self.sequences = int(params.n_seq_max)
        self.batch_tokens = int(params.n_batch)
        self.can_share = model.remembers_by_position
        self._batch = NativeBatch(self.batch_tokens)
        self._places: list[int] = []  # in the batch, of the tokens whose scores were asked for
        self._scores: NDArray[np.float32] = np.empty((0, model.vocab_size), np.float32)

    def decode(self, chunks: Sequence[Chunk]) -> None:
        """Read the chunks. Raises RuntimeError if llama.cpp can't: what the cache then holds is unknown."""
        self._places = self._batch.fill(chunks)
        code = llama_cpp.llama_decode(self._context, self._batch.handle)
        if code:
            raise RuntimeError(f"llama_decode returned {code}: {take_complaints() or 'it does not say why'}")
        if rows := len(self._places):
            start = ctypes.cast(llama_cpp.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
            self._scores = np.ctypeslib.as_array(start, (rows, self._model.vocab_size))

    def sampler(self, sampling: Sampling) -> Sampler:
        """Return a new sampler. Raises ValueError for a grammar that can't be followed."""
        model = self._model
        return new_sampler(sampling, model.vocab, model.vocab_size, scores=self._row, draw=self._draw)

    def _row(self, row: int) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self._scores[row]
        return scores

    def _draw(self, chain: Any, row: int) -> int:
        return int(llama_cpp.llama_sampler_sample(chain, self._context, self._places[row]))

    def share(self, source: int, target: int, count: int) -> None:
        """Let the empty sequence ``target`` begin with the first ``count`` tokens of ``source``: nothing is copied."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, count)

    def drop(self, sequence: int, *, but: int = 0) -> None:
        """Make ``sequence`` empty, except for its first ``but`` tokens."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, but, -1)

    def clear(self) -> None:
        """Make all sequences empty."""
        llama_cpp.llama_memory_clear(self._memory, True)

    def piece(self, token: int) -> bytes:
        """Return the token's text; one that only marks something has none."""
        return self._model.piece(token)

    def is_end(self, token: int) -> bool:
        """Tell whether ``token`` ends an answer."""
        return self._model.is_end(token)

    def close(self) -> None:
        """Free its memory, before the model's."""
        if self._context:
            self._batch.close()
            llama_cpp.llama_free(self._context)
            self._context = None
