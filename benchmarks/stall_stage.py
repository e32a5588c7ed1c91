"""What the cases of ``stalls`` are played on: a service, and what clients and workers do to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, BatchView
from aiqueue.ids import new_job_ids
from aiqueue.journal.base import Journal
from aiqueue.protocol import BatchSpec, ExchangeCall, JobHeader, Need, Outcome, Submission, SubmitGroup
from aiqueue.service.clock import SteadyClock
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import POOL, group, header, settings

PART = 1_000
PAYLOAD = b'{"type":"chat_completion","messages":[{"role":"user","content":"Hello"}]}'
BATCH = "batch"
_T = TypeVar("_T")


class JumpingClock(SteadyClock):
    """A clock that can be put forward, and the machine's with it: as if time had passed."""

    def __init__(self) -> None:
        self._passed = 0.0
        super().__init__(wall=lambda: time.time() + self._passed)

    def advance(self, seconds: float) -> None:
        """Put both forward."""
        self._passed += seconds
        self._offset += seconds


class Stage:
    """A service, and what clients and workers do to it."""

    def __init__(self, journal: Journal) -> None:
        self.clock = JumpingClock()
        self.settings = settings(cache_bytes=256 * 2**20)
        self.service = QueueService(self.settings, journal, clock=self.clock)

    async def submit(self, count: int, **fields: object) -> list[str]:
        """Submit jobs, a thousand in a call."""
        ids = new_job_ids(count)
        for part in parts_of(ids, PART):
            await self.send(group(*jobs_of(part, replace(header(), **fields))))
        return ids

    async def send(self, *groups: SubmitGroup) -> None:
        """Submit groups, none of which may be refused."""
        refused = [refusal for refusal in await self.service.submit(groups) if refusal]
        assert not refused, refused[0]

    async def open_batch(self, count: int, **fields: object) -> list[str]:
        """Send a batch in parts, and do not seal it."""
        ids = new_job_ids(count)
        spec = BatchSpec(BATCH, is_open=True)
        for at, part in enumerate(parts_of(ids, PART)):
            made = [
                Submission(job_id, replace(header(batch_id=BATCH), index=at * PART + index, **fields), PAYLOAD)
                for index, job_id in enumerate(part)
            ]
            await self.send(SubmitGroup(made, part_of="" if not at else BATCH, batch=None if at else spec))
        return ids

    async def steer(self, action: str, count: int = 0) -> BatchView:
        """Do something to the batch."""
        return await self.service.batches.call(BatchCall(BATCH, action, count))

    async def batch(self, count: int, **fields: object) -> list[str]:
        """Send and seal a batch."""
        ids = await self.open_batch(count, **fields)
        await self.steer("seal", count)
        await self.quiet()
        return ids

    async def chain(self, batch_id: str, count: int) -> list[str]:
        """Submit a chain."""
        ids = new_job_ids(count)
        await self.send(SubmitGroup(list(steps_of(batch_id, ids)), batch=BatchSpec(batch_id, "chain")))
        return ids

    async def exchange(self, *outcomes: Outcome, slots: int = 0, worker: str = "worker") -> list[str]:
        """Report, and take jobs; return their ids."""
        reply = await self.service.exchange(ExchangeCall(worker, POOL, slots, list(outcomes)))
        return [claim.job_id for claim in reply.claims]

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds."""
        while not holds():  # noqa: ASYNC110  # conditions are anything
            await asyncio.sleep(0.01)

    async def quiet(self) -> None:
        """Wait until nothing is left to be done."""
        engine = self.service._engine
        await self.until(lambda: (due := engine.next_due(now=self.clock.now())) is None or due > self.clock.now())

    async def no_live(self) -> None:
        """Wait until all jobs have ended."""
        await self.until(lambda: not self.service._engine.core.live)


Steps = AsyncIterator[None]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that happens. ``most``: jobs it makes sense for; 0: any number."""

    name: str
    play: Callable[[Stage, int], Steps]
    most: int = 0


def parts_of(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield items in parts of ``size``."""
    return (items[at : at + size] for at in range(0, len(items), size))


def jobs_of(ids: Iterable[str], made: JobHeader) -> Iterator[Submission]:
    """Yield jobs that share a header."""
    return (Submission(job_id, made, PAYLOAD) for job_id in ids)


def steps_of(batch_id: str, ids: list[str]) -> Iterator[Submission]:
    """Yield the steps of a chain, each of which needs the one before it."""
    for index, job_id in enumerate(ids):
        needs = (Need(ids[index - 1]),) if index else ()
        yield Submission(job_id, replace(header(batch_id=batch_id), index=index, needs=needs, on_error="fail"), PAYLOAD)
