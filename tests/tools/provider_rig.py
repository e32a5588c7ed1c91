"""A queue, a worker and a real client of a provider over HTTP, without Ray; and a server that says just any bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.config import ProviderConfig, Settings
from aiqueue.protocol import Event, EventsCall
from aiqueue.providers.registry import open_provider
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.memory_journal import MemoryJournal
from aiqueue.testing.script import Behaviour, Script

POOL = "http"
_LIMIT_S = 60.0  # what is waited for comes in seconds
_KEY = {"KEY": "canary-of-the-mine-42"}


class ProviderRig(AsyncAIQueueAdapter):
    """The client of such a system, which also shows the gates' events."""

    def __init__(self, transport: InProcessTransport) -> None:
        super().__init__(transport)
        self.queue = transport

    async def gate_events(self) -> list[Event]:
        """Return what gates did so far."""
        call = EventsCall("watcher", 0, all_owners=True, wait_s=0.0)
        return [event for event in (await self.queue.events(call)).events if event.gate]

    async def closings(self, count: int = 1) -> list[Event]:
        """Wait until gates have closed so often; return those events."""
        async with asyncio.timeout(_LIMIT_S):
            while True:
                closed = [event for event in await self.gate_events() if event.name == "gate:closed"]
                if len(closed) >= count:
                    return closed
                await asyncio.sleep(0.02)


@asynccontextmanager
async def calling(
    base_url: str, *, kind: str = "openai", slots: int = 32, gate: dict[str, Any] | None = None, stream: bool = False
) -> AsyncIterator[ProviderRig]:
    """Run a queue and a worker that calls the provider at ``base_url`` while the block lasts."""
    entry = {
        "kind": kind,
        "base_url": base_url,
        "credential": "KEY",
        "stream": stream,
        "gate": {"breaker_failures": 10_000, **(gate or {})},
    }
    settings = Settings(
        providers={POOL: entry},
        pools={POOL: {"providers": [POOL], "slots": slots, "workers": 1}},
        retry={"base_s": 0.02, "cap_s": 0.5},
    )
    provider = open_provider(POOL, ProviderConfig.model_validate(entry), _KEY)
    service = QueueService(settings, MemoryJournal())
    transport = InProcessTransport(service)
    try:
        async with worker_beside(transport, {POOL: provider}, slots=slots, pool=POOL), ProviderRig(transport) as rig:
            yield rig
    finally:
        await provider.close()
        await service.close()


def chat(text: str = "Why?", model: str = "sim") -> dict[str, Any]:
    """A chat of the provider under test."""
    messages = [{"role": "user", "content": text}]
    return {
        "type": "chat_completion",
        "provider": POOL,
        "model": model,
        "messages": messages,
        "config": {"max_tokens": 9},
    }


class TimedScript(Script):
    """Notes when each request came, and refuses all of them while ``down``."""

    def __init__(self) -> None:
        super().__init__()
        self.down: Behaviour | None = None
        self.times: list[float] = []  #: of all requests, by the monotonic clock
        self.refused = 0

    def take(self, model: str, body: bytes) -> Behaviour:
        """Return what to do with the request that arrives now."""
        self.times.append(time.monotonic())
        if self.down is not None:
            self.refused += 1
            return self.down
        return super().take(model, body)


class RawServer:
    """Reads requests and lets ``reply`` write whatever it wants. Counts requests and knows which clients went away."""

    def __init__(self, reply: Callable[[asyncio.StreamWriter, int], Awaitable[None]]) -> None:
        self._reply = reply
        self.requests = self.hung_up = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Yield the base URL for OpenAI's client."""
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._answer(reader, writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        self.requests += 1
        replying = asyncio.ensure_future(self._reply(writer, self.requests))
        gone = asyncio.ensure_future(reader.read(1))  # a client that waits sends nothing: this is its end
        await asyncio.wait((replying, gone), return_when=asyncio.FIRST_COMPLETED)
        self.hung_up += not replying.done()
        for task in (replying, gone):
            task.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await replying
