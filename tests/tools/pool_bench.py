"""A pool of workers without Ray: its one worker, its queue and the cluster do as a test says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from actors import cluster, worker_pool
from actors.worker_pool import WorkerPool
from aiqueue.config import Settings
from aiqueue.errors import AIQueueError, QueueUnavailable
from aiqueue.protocol import encode
from aiqueue.scaling import WorkerReport
from tests.tools.turns import until

NAME = "aiqueue-worker-p-0"


class FakeWorker:
    """An actor handle: ``report.remote()`` and so on answer as the test says."""

    def __init__(self, worker_id: str = "w0", node: str = "n0") -> None:
        self.said = WorkerReport(worker_id, 1, node)
        self.hangs = False
        self.state = cluster.ALIVE
        self.died = asyncio.Event()
        self.served = 0

    def __getattr__(self, method: str) -> Any:
        return type("Method", (), {"remote": staticmethod(getattr(self, f"_{method}"))})

    async def _report(self) -> bytes:
        if self.hangs:
            await asyncio.Event().wait()
        if self.state != cluster.ALIVE:
            raise unavailable()
        return encode(self.said)

    async def _stop(self, grace_s: float) -> None:
        pass

    async def _serve_jobs(self) -> None:
        self.served += 1
        await self.died.wait()
        raise unavailable()


class FakeQueue:
    """Notes what it is told, unless it is down."""

    def __init__(self) -> None:
        self.down = False
        self.faults: dict[str, int] = {}  # how often a call for this worker or event fails, by a bug in the queue
        self.lost: list[tuple[str, str, bool]] = []
        self.events: list[str] = []

    async def lose_worker(self, worker_id: str, reason: str, *, crashed: bool) -> None:
        """Take note, or fail."""
        self._answer(worker_id)
        self.lost.append((worker_id, reason, crashed))

    async def announce(self, event: str, data: object) -> None:
        """Take note, or fail."""
        self._answer(event)
        self.events.append(event)

    def _answer(self, about: str) -> None:
        if self.down:
            raise QueueUnavailable("down")
        if self.faults.get(about, 0):
            self.faults[about] -= 1
            raise AIQueueError("the queue failed on lose_worker (KeyError)")


class Bench:
    """A pool of one worker that an earlier manager started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue, self.worker = FakeQueue(), FakeWorker()
        self.ended: list[Any] = []
        self.started: list[str] = []
        settings = Settings(
            providers={"a": {"kind": "simulated"}},
            pools={"p": {"providers": ["a"], "workers": 1, "health_check_interval_ms": 100}},
        )
        monkeypatch.setattr(cluster, "is_gone", lambda name, namespace: False)
        monkeypatch.setattr(cluster, "state_of", lambda actor: actor.state)
        monkeypatch.setattr(cluster, "end_actor", self.ended.append)
        self.dead_nodes: set[str] = set()
        monkeypatch.setattr(cluster, "nodes", lambda: cluster.Nodes(frozenset(self.dead_nodes), {}))
        self.really_start = WorkerPool._start
        monkeypatch.setattr(WorkerPool, "_start", lambda pool, name: self.started.append(name))
        monkeypatch.setattr(worker_pool, "_RETRY_S", 0.01)
        self.pool = WorkerPool(settings, "p", self.queue)  # type: ignore[arg-type]  # all that it asks of it

    def begin(self) -> None:
        """Let the pool find its worker."""
        self.pool.begin({NAME: self.worker}, again=True)

    async def spoken(self) -> None:
        """Wait until the worker has been heard."""
        await until(lambda: self.pool.roster.members[NAME].worker_id)


def unavailable() -> ActorUnavailableError:
    """Return what Ray says of an actor that is away for a moment."""
    return ActorUnavailableError("gone for a moment", b"\0" * 16)
