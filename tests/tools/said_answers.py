"""A provider whose server says just what a test wants: through the real SDK, without a socket."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import httpx2

from aiqueue.config import ProviderConfig
from aiqueue.protocol import ClaimedJob, Outcome
from aiqueue.providers.registry import open_provider
from aiqueue.worker.runner import JobRunner

_PAYLOAD = b'{"messages":[{"role":"user","content":"hi"}],"config":{"max_tokens":9}}'


class _Said:
    """A provider of one kind, and what its server answers next."""

    def __init__(self, kind: str, *, stream: bool) -> None:
        self.content, self.status = b"", 200
        self._stream = stream
        entry = ProviderConfig(kind=kind, base_url="http://provider/v1", credential="KEY", stream=stream)
        self.provider: Any = open_provider("p", entry, {"KEY": "canary-of-the-mine-42"})
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        self.provider._client = self.provider._client.with_options(http_client=client)

    def _answer(self, _: httpx2.Request) -> httpx2.Response:
        kind = "text/event-stream" if self._stream and self.status == 200 else "application/json"
        return httpx2.Response(self.status, headers={"content-type": kind}, content=self.content)


_said = cache(_Said)  # an SDK's client takes long to make, and nothing in it belongs to one loop


async def outcome_of(kind: str, content: bytes, *, status: int = 200, stream: bool = False) -> Outcome:
    """Return what a worker makes of a chat that a provider of ``kind`` answers with ``content``."""
    said = _said(kind, stream=stream)
    said.content, said.status = content, status
    runner = JobRunner(lambda _: said.provider, max_result_bytes=2**30)
    return await runner.run(ClaimedJob("a", 1, "chat_completion", "p", "m", 30_000, _PAYLOAD))


def as_stream(events: Iterable[bytes]) -> bytes:
    """Return the body of a stream of ``events``, each the JSON of one."""
    return b"".join(b"data: " + event + b"\n\n" for event in events)
