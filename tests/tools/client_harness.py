"""Clients, a queue and a worker on one event loop."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.config import Settings
from aiqueue.journal.base import Journal
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import settings
from tests.tools.fake_provider import FakeProvider
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


class ClientHarness:
    """Use as an async context manager. A worker runs from ``work`` on; clients are stopped at the end."""

    def __init__(self, config: Settings | None = None, journal: Journal | None = None) -> None:
        self.queue = ServiceHarness(config or settings(retry_s=0.0, models=("model-a",)), journal)
        self.transport = InProcessTransport(self.queue.service)
        self._transports = [self.transport]
        self.provider = FakeProvider()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ClientHarness:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.provider.release()
        await self._stack.aclose()
        await self.queue.service.close()

    async def work(self, slots: int = 50) -> None:
        """Let a worker answer what is queued."""
        await self._stack.enter_async_context(worker_beside(self.transport, {"sim": self.provider}, slots=slots))

    async def client(self, transport: InProcessTransport | None = None) -> AsyncAIQueueAdapter:
        """Return one more client that is started."""
        if transport is not None:
            self._transports.append(transport)
        return await self._stack.enter_async_context(AsyncAIQueueAdapter(transport or self.transport))

    async def crash(self) -> None:
        """Kill the queue and start the one that comes after it."""
        dead = self.queue
        self.queue = ServiceHarness(dead.settings, dead.memory.crash())
        self.transport.restart_with(self.queue.service)
        await dead.service.close()  # only to end its thread: nobody can reach it any more

    async def polled(self) -> None:
        """Wait until a client's long poll waits at the queue, and what clients began to look up is found.

        A thread reads what they look up, so it may come long after the poll.
        """
        await turns()
        await until(
            lambda: (
                self.queue.service._log._parked
                and not any(transport.under_way("get_jobs") for transport in self._transports)
            )
        )
