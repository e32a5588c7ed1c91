"""Vectors of texts: a context of its own on the same weights, made at first use, that remembers nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from aiqueue.llama.backend import Chunk
from aiqueue.llama.native_batch import NativeBatch
from aiqueue.llama.native_log import take_complaints
from aiqueue.llama.native_model import NativeModel, load_error

TEXTS_AT_ONCE = 16


class Embedder:
    """Makes vectors. One thread at a time."""

    def __init__(self, model: NativeModel, *, batch_tokens: int, threads: int) -> None:
        """Make the context; ``batch_tokens`` is the longest text: a vector needs all of its tokens in one step.

        Raises ModelNotReady if there is no memory for it, BadModelFile if the model makes none.
        """
        self._model = model
        self._context, pooling = self._open(batch_tokens, threads, None)
        if pooling == llama_cpp.LLAMA_POOLING_TYPE_NONE:
            # A model that was not made for vectors has one for each token: their mean stands for the text.
            llama_cpp.llama_free(self._context)
            self._context, _ = self._open(batch_tokens, threads, llama_cpp.LLAMA_POOLING_TYPE_MEAN)
        self._size = int(llama_cpp.llama_model_n_embd_out(model.handle))
        self._batch = NativeBatch(batch_tokens)

    def _open(self, batch_tokens: int, threads: int, pooling: int | None) -> tuple[Any, int]:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = TEXTS_AT_ONCE
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = params.kv_unified = params.no_perf = True
        if pooling is not None:
            params.pooling_type = pooling
        context = llama_cpp.llama_init_from_model(self._model.handle, params)
        if not context:
            raise load_error(f"model file {self._model.path} gets no context for vectors", take_complaints())
        return context, int(llama_cpp.llama_pooling_type(context))

    def vectors(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the vector of each text, given as tokens: at most TEXTS_AT_ONCE that fit one batch together."""
        chunks = [Chunk(at, 0, np.array(tokens, np.int32), scores=True) for at, tokens in enumerate(texts)]
        self._batch.fill(chunks, all_scores=True)
        memory = llama_cpp.llama_get_memory(self._context)
        if memory:
            llama_cpp.llama_memory_clear(memory, False)
        code = llama_cpp.llama_decode(self._context, self._batch.handle)
        if code:
            raise RuntimeError(f"llama_decode returned {code}: {take_complaints() or 'it does not say why'}")
        return [self._vector(at) for at in range(len(texts))]

    def _vector(self, sequence: int) -> list[float]:
        found = llama_cpp.llama_get_embeddings_seq(self._context, sequence)
        vector: list[float] = np.ctypeslib.as_array(found, (self._size,)).tolist()
        return vector

    def close(self) -> None:
        """Free its memory, before the model's."""
        if self._context:
            self._batch.close()
            llama_cpp.llama_free(self._context)
            self._context = None


def in_batches(texts: Sequence[Sequence[int]], batch_tokens: int) -> list[list[Sequence[int]]]:
    """Return ``texts`` in order, parted into lists that one step can take. None may be longer than a batch.

    >>> in_batches([[1, 2], [3], [4, 5]], 3)
    [[[1, 2], [3]], [[4, 5]]]
    """
    parts: list[list[Sequence[int]]] = []
    room = 0
    for tokens in texts:
        if not parts or len(tokens) > room or len(parts[-1]) == TEXTS_AT_ONCE:
            parts.append([])
            room = batch_tokens
        parts[-1].append(tokens)
        room -= len(tokens)
    return parts
