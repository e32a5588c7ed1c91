"""A provider that does what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.results import Choice, FinishReason, Message, Response, Usage
from aiqueue.testing.jobs import PROVIDER


class FakeProvider:
    """Answers at once, unless it is held or told what to raise. It knows every call and how it ended."""

    def __init__(self, name: str = PROVIDER) -> None:
        self.name = name
        self.job_types = frozenset({"chat_completion", "text_completion", "embedding"})
        self.calls: list[ProviderRequest] = []
        self.running = 0
        self.most_at_once = 0
        self.stopped: list[str] = []  #: jobs whose call was cancelled
        self.closed = 0
        self.text = "Hi there"
        self.partial = ""  #: what a cancelled call had produced
        self.behave: Callable[[ProviderRequest], object] = lambda request: None  #: may raise; runs in each call
        self._gate = asyncio.Event()
        self._gate.set()

    def hold(self) -> None:
        """Let calls wait until ``release``."""
        self._gate.clear()

    def release(self) -> None:
        """Let the calls that wait go on."""
        self._gate.set()

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        self.calls.append(request)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await self._gate.wait()
            self.behave(request)
        except asyncio.CancelledError:
            self.stopped.append(request.job_id)
            if self.partial and request.on_partial:
                request.on_partial(self._answer(request, self.partial, "cancelled"))
            raise
        finally:
            self.running -= 1
        return self._answer(request, self.text, "stop")

    def _answer(self, request: ProviderRequest, text: str, finish_reason: FinishReason) -> ProviderAnswer:
        choice = Choice(index=0, message=Message(content=text), finish_reason=finish_reason)
        return ProviderAnswer(
            response=Response(model=request.model, choices=[choice]),
            usage=Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5),
            finish_reason=finish_reason,
            request_id="req-1",
            raw={"echo": request.body},
        )

    async def health_check(self) -> None:
        return None

    async def close(self) -> None:
        self.closed += 1
