"""One request on its way: its prompt, what was generated, how far the model has read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aiqueue.llama.backend import Chunk, Sampler
from aiqueue.llama.planner import Want
from aiqueue.llama.prefixes import Tokens
from aiqueue.llama.requests import EndReason, Generation, GenerationRequest
from aiqueue.llama.text_stream import TextStream

OnEnd = Callable[[Generation | Exception], None]

NOWHERE = -1


class Sequence:
    """A request in the engine. ``place`` is the sequence of the model that it has, NOWHERE while it waits."""

    def __init__(self, number: int, request: GenerationRequest, sampler: Sampler, on_end: OnEnd) -> None:
        self.number = number
        self.request = request
        self.sampler = sampler
        self.on_end = on_end
        self.prompt: Tokens = np.array(request.tokens, np.int32)
        self.produced: list[int] = []
        self.stream = TextStream(request.stop)
        self.place = NOWHERE
        self.read = 0  #: tokens in the cache, of ``prompt`` and then of ``produced``
        self.cached = 0
        self.cancelled = False

    @property
    def rank(self) -> tuple[int, int]:
        """Its place in the line: level first, then order of arrival."""
        return self.request.level, self.number

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt) + len(self.produced)

    @property
    def unread(self) -> int:
        """Tokens that the model has yet to read before it can choose the next."""
        return self.length - self.read

    @property
    def still_to_produce(self) -> int:
        """How many tokens may still come, as far as the request says."""
        limit = self.request.max_tokens
        return 1 << 30 if limit is None else limit - len(self.produced)

    def tokens(self) -> Tokens:
        """Return prompt and answer so far."""
        return np.concatenate([self.prompt, np.array(self.produced, np.int32)])

    def want(self) -> Want:
        """Return what the planner must know."""
        return Want(self.place, self.unread, generating=bool(self.produced) and self.unread == 1)

    def chunk(self, count: int) -> Chunk:
        """Return the next ``count`` unread tokens."""
        start, end = self.read, self.read + count
        if count == 1 and start >= len(self.prompt):
            tokens = np.array([self.produced[start - len(self.prompt)]], np.int32)
        else:
            tokens = (self.prompt if end <= len(self.prompt) else self.tokens())[start:end]
        return Chunk(self.place, start, tokens, scores=end == self.length)

    def show(self, piece: bytes) -> None:
        """Add a token's text to the answer."""
        self._tell(self.stream.feed(piece))

    def finish(self, end: EndReason) -> Generation:
        """Return what has come of it. Text that was held back for a stop text that did not come is in it."""
        self._tell(self.stream.finish())
        return Generation(
            text=self.stream.text,
            end=end,
            tokens=tuple(self.produced),
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
        )

    def _tell(self, text: str) -> None:
        if text and self.request.on_text:
            self.request.on_text(text)
