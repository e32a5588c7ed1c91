"""A queue on a machine whose clock is set, that sleeps, and whose queue and self are started again."""

from __future__ import annotations

from aiqueue.protocol import ExchangeCall, JobHeader, JobView, Outcome, SubmitGroup
from aiqueue.service.clock import SteadyClock
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import POOL, group, settings, submission
from aiqueue.testing.manual_clock import ManualMachine
from aiqueue.testing.memory_journal import MemoryJournal

SET, SET_WHILE_DOWN, REBOOTED, SLEPT = "set", "set while down", "put back by a reboot", "slept"


class ClockRig:
    """Make it inside a running loop; ``close`` it at the end."""

    def __init__(self) -> None:
        self.machine, self.journal = ManualMachine(), MemoryJournal()
        self.settings = settings()
        self._start()

    def _start(self) -> None:
        self.clock = SteadyClock(self.machine.wall, self.machine.counted, self.machine.boot)
        self.service = QueueService(self.settings, self.journal, clock=self.clock)

    async def step(self, how: str, by_s: float) -> None:
        """Do something to the clock; the queue lives through it, or is started again afterwards."""
        if how == SLEPT:
            self.machine.suspend(by_s)
        elif how == SET:
            self.machine.set_by(by_s)
        else:
            self.journal = self.journal.crash()
            await self.service.close()
            if how == REBOOTED:
                self.machine.reboot()
            self.machine.set_by(by_s)
            self._start()
        await self.tick()

    async def tick(self) -> None:
        """Let the queue's timer fire, and what it does be committed."""
        self.service._ticker.tick()
        await self.service._commits.settled()

    async def run(self, seconds: float) -> None:
        """Let time pass while all goes well."""
        self.machine.run(seconds)
        self.service._ticker.ticked_at = self.clock.now()  # as if the timer had fired all the while
        await self.tick()

    async def submit(self, *ids: str, job: JobHeader) -> None:
        """Submit jobs by id."""
        await self.send(group(*(submission(job_id, job) for job_id in ids)))

    async def send(self, sent: SubmitGroup) -> str:
        """Submit a group; return the id that its key was used for before, if any."""
        reply = await self.service.submit_and_linger([sent], 0.0)
        assert reply.groups == [None]
        return reply.known.get(0, "")

    async def work(self, *outcomes: Outcome, slots: int = 1) -> list[str]:
        """Let a worker report and take jobs; return their ids. It waits where there is none to take."""
        reply = await self.service.exchange(ExchangeCall("worker", POOL, slots, list(outcomes)))
        return [job.job_id for job in reply.claims]

    async def view(self, job_id: str) -> JobView | None:
        """Return a job, if it is known."""
        (view,) = await self.service.get_jobs([job_id])
        return view

    async def status(self, job_id: str) -> str:
        """Return a job's state; empty if it is unknown."""
        view = await self.view(job_id)
        return view.status if view else ""

    def ready(self) -> int:
        """Return how many jobs a worker could take now."""
        return self.service._engine.ready(POOL, now=self.clock.now())

    async def forget(self) -> None:
        """Let retention make a whole pass."""
        retention = self.service._retention
        retention.tick()
        while retention._step_task is not None and not retention._step_task.done():
            await retention._step_task

    async def close(self) -> None:
        """End the queue."""
        await self.service.close()
