"""A provider that asks nobody: answers at once, or after ``latency_ms``. For load tests, benchmarks and dry runs.

It says what it was asked, so an answer that went to the wrong job shows.
"""

from __future__ import annotations

import asyncio

from aiqueue.config import ProviderConfig
from aiqueue.providers.base import ProviderAnswer, ProviderRequest
from aiqueue.results import Choice, Embedding, Message, Response, Usage

_TYPES = frozenset({"chat_completion", "text_completion", "embedding"})
_CHARS_PER_TOKEN = 4
_ECHO_CHARS = 200


class SimulatedProvider:
    """See the module."""

    def __init__(self, name: str, entry: ProviderConfig) -> None:
        self.name = name
        self.job_types = _TYPES
        self._latency_s = entry.latency_ms / 1e3

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        """Return the end of the prompt; for an embedding, a vector of its length."""
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        prompt = _prompt(request)
        usage = Usage(prompt_tokens=max(1, len(prompt) // _CHARS_PER_TOKEN), completion_tokens=8)
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
        response = Response(model=request.model, id=request.job_id)
        if request.type == "embedding":
            response.data = [Embedding(index=0, embedding=[float(len(prompt)), 1.0])]
            return ProviderAnswer(response=response, usage=usage)
        text = prompt[-_ECHO_CHARS:]
        completed = text if request.type == "text_completion" else None
        response.choices = [Choice(index=0, message=Message(content=text), text=completed, finish_reason="stop")]
        return ProviderAnswer(response=response, usage=usage, finish_reason="stop")

    async def health_check(self) -> None:
        """Always healthy."""

    async def close(self) -> None:
        """Nothing to let go of."""


def _prompt(request: ProviderRequest) -> str:
    body = request.body
    if "messages" in body:
        return str(body["messages"][-1].get("content") or "")
    return str(body.get("prompt") or body.get("input") or "")
