"""A queue service with a journal in memory and a clock that stands still."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from aiqueue.config import Settings
from aiqueue.journal.base import Journal
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import Event, EventsCall, ExchangeCall, ExchangeReply, JobView, Outcome, Refusal
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import POOL, group, header, settings, submission
from aiqueue.testing.manual_clock import ManualClock
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.turns import turns


class ServiceHarness:
    """One service; ``restarted`` gives the one that comes after a crash. Make it inside a running loop."""

    def __init__(
        self,
        config: Settings | None = None,
        journal: Journal | None = None,
        *,
        restarted: bool = False,
        clock: ManualClock | None = None,
    ) -> None:
        self.settings = config or settings()
        self.journal = journal or MemoryJournal()
        self.clock = clock or ManualClock()
        self.service = QueueService(self.settings, self.journal, clock=self.clock, restarted=restarted)

    @property
    def memory(self) -> MemoryJournal:
        """The journal, where it is the one for tests."""
        assert isinstance(self.journal, MemoryJournal)
        return self.journal

    async def crashed(self) -> ServiceHarness:
        """Return what runs after this one was killed: only what was committed is left."""
        survivor = self.memory.crash()
        await self.service.close()
        return ServiceHarness(self.settings, survivor)

    async def submit(self, *ids: str, level: AIJobPriority = AIJobPriority.MEDIUM, **fields: object) -> Refusal | None:
        """Submit jobs by id, one group."""
        jobs = [submission(job_id, replace(header(level), **fields)) for job_id in ids]
        (reply,) = await self.service.submit([group(*jobs)])
        return reply

    async def exchange(
        self,
        *outcomes: Outcome,
        worker: str = "worker-1",
        slots: int = 4,
        running: list[tuple[str, int]] | None = None,
    ) -> ExchangeReply:
        """Let a worker report and ask for work."""
        return await self.service.exchange(ExchangeCall(worker, POOL, slots, list(outcomes), running))

    async def park(self, *outcomes: Outcome, worker: str = "worker-1", slots: int = 4) -> asyncio.Task[ExchangeReply]:
        """Let a worker wait for work; return its poll, which waits."""
        poll = asyncio.create_task(self.exchange(*outcomes, worker=worker, slots=slots))
        await turns(2)
        assert not poll.done()
        return poll

    async def claim(self, count: int = 1, worker: str = "worker-1") -> list[str]:
        """Let an idle worker take jobs that wait; return their ids."""
        return [job.job_id for job in (await self.exchange(worker=worker, slots=count)).claims]

    def ready(self) -> int:
        """Return how many jobs a worker could be given now."""
        return self.service._engine.ready(POOL, now=self.clock.now())

    async def forget_old(self) -> None:
        """Let retention make a pass now, after the one that is under way."""
        retention = self.service._retention
        if retention._step_task is not None:
            await retention._step_task
        retention._next_pass_at = 0.0
        retention.tick()
        await retention._step_task

    async def view(self, job_id: str) -> JobView:
        """Return a job as it is on disk."""
        (view,) = await self.service.get_jobs([job_id])
        assert view is not None
        return view

    async def events(self, after: int = 0, **fields: object) -> list[Event]:
        """Return all events after a cursor."""
        call = EventsCall("watcher", after, all_owners=True, wait_s=0.0)
        for name, value in fields.items():
            setattr(call, name, value)
        return (await self.service.events(call)).events
