"""A queue without Ray for the command line, and a way to call it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aiqueue.cli import app
from aiqueue.cli.joining import Joined
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.config import ProviderConfig, Settings
from aiqueue.protocol import ProviderEntry
from aiqueue.providers.simulated import SimulatedProvider
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import MODEL, POOL, PROVIDER, settings
from aiqueue.testing.memory_journal import MemoryJournal


class Beside:
    """A queue on an event loop in a thread of its own: each call of the command line has a client with another loop."""

    def __init__(self) -> None:
        self.settings = settings(models=(MODEL,))
        self.joins: list[tuple[str, str | None]] = []  #: namespace and address of each join
        self._once: dict[str, Callable[[], None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._workers = AsyncExitStack()
        self._service, self._transport = self.run(self._start())

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return what ``call`` returns on the queue's loop."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(10)

    def join(self, namespace: str, address: str | None) -> Joined:
        """Stand in for ``join_over_ray``."""
        self.joins.append((namespace, address))
        adapter = AIQueueAdapter(self)  # type: ignore[arg-type]
        adapter.start()
        return Joined(adapter, self.providers)

    def providers(self) -> list[ProviderEntry]:
        """Return what the queue has."""
        entries: list[ProviderEntry] = self._service.welcome().providers
        return entries

    def add_worker(self) -> None:
        """Let a worker answer what is queued."""
        self.run(self._work())

    def after_first(self, method: str, act: Callable[[], None]) -> None:
        """Call ``act`` when a client has had its answer to the next call of ``method``."""
        self._once[method] = act

    def close(self) -> None:
        """End worker, queue and loop."""
        self.run(self._workers.aclose())
        self.run(self._service.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getattr__(self, method: str) -> Any:
        """Be a transport whose calls cross to the queue's loop."""

        async def call(*args: Any, **options: Any) -> Any:
            there = asyncio.run_coroutine_threadsafe(getattr(self._transport, method)(*args, **options), self._loop)
            answer = await asyncio.wrap_future(there)
            self._once.pop(method, lambda: None)()
            return answer

        return call

    async def _start(self) -> tuple[QueueService, InProcessTransport]:
        service = QueueService(self.settings, MemoryJournal())
        return service, InProcessTransport(service)

    async def _work(self) -> None:
        provider = SimulatedProvider(PROVIDER, ProviderConfig(kind="simulated"))
        await self._workers.enter_async_context(worker_beside(self._transport, {PROVIDER: provider}, pool=POOL))


class Terminal:
    """Types commands."""

    def __init__(self, queue: Beside) -> None:
        self._queue = queue

    def __call__(self, *command: str, stdin: str | bytes = "") -> Result:
        """Return what ``aiqueue`` with these arguments prints, and its exit code."""
        return CliRunner().invoke(app, list(command), input=stdin, obj=self._queue.join)


@pytest.fixture
def queue() -> Iterator[Beside]:
    """Return a queue that takes jobs; no worker yet."""
    beside = Beside()
    yield beside
    beside.close()


@pytest.fixture
def aiqueue(queue: Beside, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return the command, in an environment without settings."""
    for variable in [f"AIQUEUE_{name.upper()}" for name in Settings.model_fields] + ["AIQUEUE_CONFIG", "RAY_ADDRESS"]:
        monkeypatch.delenv(variable, raising=False)
    return Terminal(queue)
