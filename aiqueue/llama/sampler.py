"""Choosing the next token by llama.cpp's own samplers."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from aiqueue.llama.requests import Sampling

Scores = Callable[[int], NDArray[np.float32]]  #: of a row: one score for each token of the vocabulary
Draw = Callable[[Any, int], int]  #: a token, by a sampler chain and the scores of a row

_PENALTY_TOKENS = 1_024  # of the answer's end, in which repetitions count
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class GreedySampler:
    """The likeliest token, always."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def next(self, row: int) -> int:
        """Return the token with the highest score."""
        return int(self._scores(row).argmax())

    def close(self) -> None:
        """Nothing to free."""


class ChainSampler:
    """llama.cpp's chain of samplers, all of it in one call."""

    def __init__(self, sampling: Sampling, vocab_size: int, draw: Draw) -> None:
        self._draw = draw
        self._chain = _chain(sampling, vocab_size)

    def next(self, row: int) -> int:
        """Return a token drawn by the scores of ``row``; it counts for the penalties from now on."""
        return self._draw(self._chain, row)

    def close(self) -> None:
        """Free the samplers."""
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None


class GrammarSampler:
    """A chain beside a grammar.

    A grammar judges every token of the vocabulary, which costs milliseconds. So the chain chooses first, and only a
    choice that the grammar forbids is made again among what it allows.
    """

    def __init__(self, sampling: Sampling, vocab: Any, vocab_size: int, scores: Scores) -> None:
        self._scores = scores
        self._candidates = np.empty(vocab_size, _CANDIDATE)
        self._ids = np.arange(vocab_size, dtype=np.int32)
        self._grammar: Any = llama_cpp.llama_sampler_init_grammar(vocab, sampling.grammar.encode(), b"root")
        if not self._grammar:
            raise ValueError("response_format: llama.cpp does not take the grammar made of it")
        self._chain = _chain(sampling, vocab_size)

    def next(self, row: int) -> int:
        """Return a token drawn by the scores of ``row``; it counts for the penalties and the grammar from now on."""
        scores = self._scores(row)
        token = self._choose(scores, grammar=False)
        if not self._allows(token):
            token = self._choose(scores, grammar=True)
        llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the samplers."""
        for sampler in (self._chain, self._grammar):
            if sampler:
                llama_cpp.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def _choose(self, scores: NDArray[np.float32], *, grammar: bool) -> int:
        candidates = self._candidates
        candidates["id"], candidates["logit"] = self._ids, scores
        array = _array_of(candidates)
        if grammar:
            llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        chosen = array.data[array.selected]
        if not math.isfinite(chosen.logit):  # accepted all the same, it would end the process
            raise ValueError("response_format: no token continues the answer as the schema asks")
        return int(chosen.id)

    def _allows(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], _CANDIDATE)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(_array_of(one)))
        return bool(np.isfinite(one["logit"][0]))


def new_sampler(
    sampling: Sampling, vocab: Any, vocab_size: int, *, scores: Scores, draw: Draw
) -> GreedySampler | ChainSampler | GrammarSampler:
    """Return what ``sampling`` asks for. Raises ValueError for a grammar that llama.cpp does not take."""
    if sampling.grammar:
        return GrammarSampler(sampling, vocab, vocab_size, scores)
    if sampling.temperature > 0.0 or sampling.presence_penalty or sampling.frequency_penalty:
        return ChainSampler(sampling, vocab_size, draw)
    return GreedySampler(scores)


def _chain(sampling: Sampling, vocab_size: int) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())

    def add(sampler: Any) -> None:
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    if sampling.presence_penalty or sampling.frequency_penalty:
        add(
            llama_cpp.llama_sampler_init_penalties(
                vocab_size, _PENALTY_TOKENS, 1.0, sampling.frequency_penalty, sampling.presence_penalty
            )
        )
    if sampling.temperature <= 0.0:
        add(llama_cpp.llama_sampler_init_greedy())
        return chain
    if sampling.top_k > 0:
        add(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    add(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    add(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    add(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    add(llama_cpp.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))
    return chain


def _array_of(candidates: Any) -> Any:
    data = candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
