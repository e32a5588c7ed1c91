"""One loaded model: llama-cpp-python's ``Llama``, made to stop on demand and to refuse what would crash it.

Not safe for several threads: whoever owns one calls it from one thread only (``stop`` may be set from any).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, cast

import llama_cpp
import numpy as np
from llama_cpp.llama_grammar import JSON_GBNF, LlamaGrammar

from aiqueue.llama.model_file import BadModelFile, check_model_file
from aiqueue.llama.native_log import capture_native_log, take_complaints

#: Tokens of one step, and so the longest text that can be embedded: a vector is only right when all of its tokens are
#: in one step. More would cost memory by the size of the vocabulary (512 times 128,000 scores: 256 MB).
BATCH_TOKENS = 512

_TEXTS_AT_ONCE = 16  # to embed; between these a job can be stopped
_NO_POOLING = llama_cpp.LLAMA_POOLING_TYPE_NONE


class Stopped(Exception):
    """The work ended because it was told to."""


class PromptTooLong(Exception):
    """A prompt, or a text to embed, has ``tokens`` where at most ``limit`` fit."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(tokens, limit)
        self.tokens, self.limit = tokens, limit

    def __str__(self) -> str:
        return f"{self.tokens} tokens, but at most {self.limit} fit"


class StoppableLlama(llama_cpp.Llama):
    """A ``Llama`` whose work ends with Stopped, at the next token or text, once ``stop`` is set."""

    stop: Event

    def chat(self, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """Return the answer to ``messages``, put in the model's own chat template, in OpenAI's format."""
        self._switch_to(vectors=False)
        return cast(dict[str, Any], self.create_chat_completion(cast(Any, messages), **options))

    def complete(self, prompt: str, **options: Any) -> dict[str, Any]:
        """Return a text that continues ``prompt``, in OpenAI's format."""
        self._switch_to(vectors=False)
        return cast(dict[str, Any], self.create_completion(self.tokenize(prompt.encode(), special=True), **options))

    def vectors(self, texts: list[str], *, model: str) -> dict[str, Any]:
        """Return the vector of each of ``texts``, in OpenAI's format, under the name ``model``."""
        tokens = [self._tokens_to_embed(text, number) for number, text in enumerate(texts)]
        self._switch_to(vectors=True)
        found: list[list[float]] = []
        # `embed` mixes up the tokens of several texts where it has to return them one by one.
        at_once = 1 if llama_cpp.llama_pooling_type(self.ctx) == _NO_POOLING else _TEXTS_AT_ONCE
        for start in range(0, len(texts), at_once):
            self._stop_if_told()
            found += [_pooled(vector) for vector in self.embed(texts[start : start + at_once])]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found)]
        usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
        return {"object": "list", "data": data, "model": model, "usage": usage}

    def create_completion(self, prompt: Any, **options: Any) -> Any:  # type: ignore[override]
        """Complete ``prompt``, which is tokens by now: ``chat`` comes through here too. Raises PromptTooLong."""
        if len(prompt) >= self.n_ctx():  # one must be left for the answer
            raise PromptTooLong(len(prompt), self.n_ctx() - 1)
        return super().create_completion(prompt, **options)

    def generate(self, tokens: Any, *args: Any, **options: Any) -> Iterator[int]:  # type: ignore[override]
        """Yield the tokens that continue ``tokens``. Raises ValueError if there are none to continue."""
        if not tokens:
            raise ValueError("the prompt has no tokens")
        for token in super().generate(tokens, *args, **options):
            self._stop_if_told()
            yield token

    def _stop_if_told(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _tokens_to_embed(self, text: str, number: int) -> int:
        tokens = len(self.tokenize(text.encode()))
        if tokens == 0:  # `embed` would write outside its buffer
            raise ValueError(f"input.{number} has no tokens")
        if tokens > self.n_batch:  # `embed` would cut it off and say nothing
            raise PromptTooLong(tokens, self.n_batch)
        return tokens

    def _switch_to(self, *, vectors: bool) -> None:
        # While a context makes vectors it computes the scores of every prompt token: a sixth of the speed of a chat.
        llama_cpp.llama_set_embeddings(self.ctx, vectors)


def load_model(path: Path, *, context_tokens: int, threads: int, gpu_layers: int) -> StoppableLlama:
    """Load the GGUF file at ``path``. Raises BadModelFile saying why it can't be."""
    check_model_file(path)
    capture_native_log()
    batch = min(BATCH_TOKENS, context_tokens)
    try:
        return StoppableLlama(
            model_path=str(path),
            n_ctx=context_tokens,
            n_batch=batch,
            n_ubatch=batch,
            n_threads=threads,
            n_threads_batch=threads,  # by itself it takes all cores, and actors that share a machine fight for them
            n_gpu_layers=gpu_layers,
            embedding=True,
            verbose=False,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise BadModelFile(f"model file {path} does not load: {take_complaints() or error}") from None


def grammar_of(response_format: dict[str, Any]) -> LlamaGrammar | None:
    """Return what holds a generation to ``response_format`` (OpenAI's): None for plain text.

    Raises ValueError for a kind of format, or a JSON schema, that can't be turned into a grammar. llama-cpp-python's
    own handling of the argument would then allow any JSON and say nothing.
    """
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = response_format.get("schema")
    elif kind == "json_schema":
        schema = (response_format.get("json_schema") or {}).get("schema")
    else:
        raise ValueError(f"response_format.type {kind!r} is none of text, json_object, json_schema")
    if schema is None:
        return LlamaGrammar.from_string(JSON_GBNF, verbose=False)
    try:
        return LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
    except Exception as error:  # its translator raises whatever it trips over
        raise ValueError(f"response_format: the schema can't be followed: {type(error).__name__}: {error}") from None


def _pooled(vector: Any) -> list[float]:
    # A model that was not made for embeddings gives a vector for each token: their mean stands for the text. One that
    # was made for it pools in its own way, and its answer is the text's vector already.
    return cast(list[float], np.mean(vector, axis=0).tolist() if isinstance(vector[0], list) else vector)
