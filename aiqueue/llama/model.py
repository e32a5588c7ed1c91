"""One loaded model: llama-cpp-python's ``Llama``, made to stop on demand and to refuse what would crash it.

Not safe for several threads: whoever owns one calls it from one thread only (``stop`` excepted).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any, cast

import llama_cpp

from aiqueue.llama.model_file import BadModelFile, check_model_file
from aiqueue.llama.native_log import capture_native_log, take_complaints

#: Tokens in one step of reading a prompt, and the longest text that can be embedded: a pooled vector is only right when
#: all its tokens are in one step. More costs memory by the size of the vocabulary (512 times 128k logits: 256 MB).
BATCH_TOKENS = 512

_MEAN_POOLING = 1


class Stopped(Exception):
    """The generation ended because it was told to."""


class PromptTooLong(Exception):
    """``tokens`` of a prompt or text are more than the ``limit`` that fits."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(tokens, limit)
        self.tokens, self.limit = tokens, limit


class StoppableLlama(llama_cpp.Llama):
    """A ``Llama`` whose generation ends with Stopped, at the next token, once ``stop`` is set."""

    stop: Event

    def generate(self, tokens: Sequence[int], *args: Any, **kwargs: Any) -> Iterator[int]:  # type: ignore[override]
        """Yield tokens that continue ``tokens``. Raises Stopped, or ValueError if there are none to continue."""
        if not tokens:
            raise ValueError("the prompt has no tokens")
        for token in super().generate(tokens, *args, **kwargs):
            if self.stop.is_set():
                raise Stopped
            yield token

    def chat(self, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """Return the answer to ``messages`` under the model's own chat template, in OpenAI's format."""
        self._want_vectors(False)
        self._refuse_too_long = None
        return cast(dict[str, Any], self.create_chat_completion(cast(Any, messages), **options))
