"""A queue and a worker's way to it, in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import settings
from aiqueue.worker import loop as loop_module
from tests.tools.fake_provider import FakeProvider
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker ask again after a lost call sooner than it does for a queue that restarts."""
    monkeypatch.setattr(loop_module, "_RETRY_S", 0.0)


class System:
    """A queue, a worker's way to it, and its provider."""

    def __init__(self, heartbeat_s: float = 30.0) -> None:
        self.queue = ServiceHarness(settings(retry_s=0.0, heartbeat_s=heartbeat_s))
        self.transport = InProcessTransport(self.queue.service)
        self.provider = FakeProvider()

    def worker(self, slots: int = 4) -> object:
        return worker_beside(self.transport, {"sim": self.provider}, slots=slots, worker_id="w")

    async def status(self, job_id: str) -> str:
        return (await self.queue.view(job_id)).status

    async def ended(self, *job_ids: str) -> list[str]:
        """Wait until the jobs have ended; return how."""
        counters = self.queue.service._engine
        await until(lambda: not any(counters.knows(job_id) for job_id in job_ids))
        return [await self.status(job_id) for job_id in job_ids]

    def calls_of(self, job_id: str) -> int:
        return sum(call.job_id == job_id for call in self.provider.calls)


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Return a system whose worker is not started yet."""
    made = System()
    yield made
    await made.queue.service.close()
