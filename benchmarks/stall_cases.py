"""What happens to many jobs at once: each case first makes them, yields, and then lets it happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, BatchView, ResultsCall
from aiqueue.errors import RateLimited
from aiqueue.ids import new_job_ids
from aiqueue.journal.base import Journal
from aiqueue.protocol import BatchSpec, EventsCall, ExchangeCall, JobHeader, Need, Outcome, Submission, SubmitGroup
from aiqueue.service.clock import SteadyClock
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import POOL, completed, final, group, header, settings

_PART = 1_000
_PAYLOAD = b'{"type":"chat_completion","messages":[{"role":"user","content":"Hello"}]}'
_BATCH = "batch"
_T = TypeVar("_T")


class JumpingClock(SteadyClock):
    """A clock that can be put forward."""

    def advance(self, seconds: float) -> None:
        """Put it forward."""
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
        for part in _parts(ids, _PART):
            await self.send(group(*_jobs(part, replace(header(), **fields))))
        return ids

    async def send(self, *groups: SubmitGroup) -> None:
        """Submit groups, none of which may be refused."""
        refused = [refusal for refusal in await self.service.submit(groups) if refusal]
        assert not refused, refused[0]

    async def open_batch(self, count: int, **fields: object) -> list[str]:
        """Send a batch in parts, and do not seal it."""
        ids = new_job_ids(count)
        spec = BatchSpec(_BATCH, is_open=True)
        for at, part in enumerate(_parts(ids, _PART)):
            made = [
                Submission(job_id, replace(header(batch_id=_BATCH), index=at * _PART + index, **fields), _PAYLOAD)
                for index, job_id in enumerate(part)
            ]
            await self.send(SubmitGroup(made, part_of="" if not at else _BATCH, batch=None if at else spec))
        return ids

    async def steer(self, action: str, count: int = 0) -> BatchView:
        """Do something to the batch."""
        return await self.service.batches.call(BatchCall(_BATCH, action, count))

    async def batch(self, count: int, **fields: object) -> list[str]:
        """Send and seal a batch."""
        ids = await self.open_batch(count, **fields)
        await self.steer("seal", count)
        await self.quiet()
        return ids

    async def chain(self, batch_id: str, count: int) -> list[str]:
        """Submit a chain."""
        ids = new_job_ids(count)
        await self.send(SubmitGroup(list(_steps(batch_id, ids)), batch=BatchSpec(batch_id, "chain")))
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


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _jobs(ids: Iterable[str], made: JobHeader) -> Iterator[Submission]:
    return (Submission(job_id, made, _PAYLOAD) for job_id in ids)


def _steps(batch_id: str, ids: list[str]) -> Iterator[Submission]:
    for index, job_id in enumerate(ids):
        needs = (Need(ids[index - 1]),) if index else ()
        yield Submission(
            job_id, replace(header(batch_id=batch_id), index=index, needs=needs, on_error="fail"), _PAYLOAD
        )


async def _seal(stage: Stage, size: int) -> Steps:
    await stage.open_batch(size)
    yield
    await stage.steer("seal", size)
    await stage.quiet()


async def _seal_with_a_delay(stage: Stage, size: int) -> Steps:
    await stage.open_batch(size, delay_ms=3_600_000)
    yield
    await stage.steer("seal", size)
    await stage.quiet()


async def _cancel(stage: Stage, size: int) -> Steps:
    await stage.batch(size)
    yield
    await stage.steer("cancel")
    await stage.no_live()


async def _cancel_by_id(stage: Stage, size: int) -> Steps:
    ids = await stage.submit(size)
    yield
    await stage.service.cancel(ids)


async def _drop(stage: Stage, size: int) -> Steps:
    await stage.open_batch(size)
    yield
    await stage.steer("drop")
    await stage.no_live()


async def _expire(stage: Stage, size: int) -> Steps:
    await stage.submit(size, expires_in_ms=3_600_000)
    yield
    stage.clock.advance(3_600)
    await stage.no_live()


async def _come_due(stage: Stage, size: int) -> Steps:
    await stage.submit(size, delay_ms=3_600_000)
    yield
    stage.clock.advance(3_600)
    await stage.until(lambda: stage.service._engine.core.due.next_at() is None)
    await stage.quiet()


async def _fail_fast(stage: Stage, size: int) -> Steps:
    await stage.submit(size, fail_fast=True)
    (job_id,) = await stage.exchange(slots=1)
    yield
    await stage.exchange(Outcome(job_id, 1, failure=RateLimited("429", status=429, retry_after_s=60.0).to_failure()))
    await stage.until(lambda: len(stage.service._engine.core.live) == 1)  # what was refused is tried again later


async def _fail_fast_of_others(stage: Stage, size: int) -> Steps:
    await stage.submit(40, model="other")
    claimed = await stage.exchange(slots=40)
    await stage.submit(size, fail_fast=True)
    yield
    for job_id in claimed:
        await stage.exchange(
            Outcome(job_id, 1, failure=RateLimited("429", status=429, retry_after_s=60.0).to_failure())
        )


async def _accept_a_chain(stage: Stage, size: int) -> Steps:
    chain = SubmitGroup(list(_steps("chain", new_job_ids(size))), batch=BatchSpec("chain", "chain"))
    yield
    await stage.send(chain)


async def _fail_a_chain(stage: Stage, size: int) -> Steps:
    await stage.chain("chain", size)
    (job_id,) = await stage.exchange(slots=1)
    yield
    await stage.exchange(Outcome(job_id, 1, failure=final()))
    await stage.no_live()


async def _fail_a_fan(stage: Stage, size: int) -> Steps:
    (parent,) = await stage.submit(1)
    await stage.exchange(slots=1)
    ids = new_job_ids(size)
    for at, part in enumerate(_parts(ids, _PART)):
        made = replace(header(batch_id=f"fan-{at}"), needs=(Need(parent),), on_error="fail")
        await stage.send(SubmitGroup(list(_jobs(part, made)), batch=BatchSpec(f"fan-{at}", "graph")))
    yield
    await stage.exchange(Outcome(parent, 1, failure=final()))
    await stage.no_live()


async def _many_models(stage: Stage, size: int) -> Steps:
    for part in _parts(range(size), 500):
        await stage.send(*(group(Submission(*new_job_ids(1), header(model=f"m{n}"), _PAYLOAD)) for n in part))
        await stage.exchange(*(completed(job_id) for job_id in await stage.exchange(slots=500)), slots=0)
    yield
    for _ in range(100):
        (job_id,) = await stage.submit(1)
        await stage.exchange(slots=1)
        await stage.exchange(completed(job_id))


async def _statistics(stage: Stage, size: int) -> Steps:
    for part in _parts(range(size), 500):
        await stage.send(*(group(Submission(*new_job_ids(1), header(model=f"m{n}"), _PAYLOAD)) for n in part))
    await stage.exchange(slots=3_000)
    yield
    await stage.service.counted_stats()
    stage.service.pool_loads()


async def _live_chains(stage: Stage, size: int) -> Steps:
    for part in _parts(range(size), 200):
        await stage.send(
            *(SubmitGroup(list(_steps(f"c{n}", new_job_ids(2))), batch=BatchSpec(f"c{n}", "chain")) for n in part)
        )
    yield
    await asyncio.sleep(2.5)


async def _parked_readers(stage: Stage, size: int) -> Steps:
    polls = [
        asyncio.ensure_future(stage.service.events(EventsCall(f"client-{n}", 0, names=["job:completed"], wait_s=300)))
        for n in range(size)
    ]
    await asyncio.sleep(0.1)
    yield
    for _ in range(100):
        (job_id,) = await stage.submit(1)
        await stage.exchange(slots=1)
        await stage.exchange(completed(job_id))
    for poll in polls:
        poll.cancel()


async def _retried(stage: Stage, size: int) -> None:
    await stage.batch(size)
    while claimed := await stage.exchange(slots=_PART):
        await stage.exchange(*(Outcome(job_id, 1, failure=final()) for job_id in claimed))
        if not stage.service._engine.core.live:
            break


async def _retry(stage: Stage, size: int) -> Steps:
    await _retried(stage, size)
    yield
    await stage.steer("retry_failed")


async def _pages_after_retry(stage: Stage, size: int) -> Steps:
    await _retried(stage, size)
    await stage.steer("retry_failed")
    while stage.service._engine.core.live:
        await stage.exchange(*(completed(job_id) for job_id in await stage.exchange(slots=_PART)))
    yield
    for at in range(20):
        await stage.service.batches.results(ResultsCall(_BATCH, at * 100, 100))


CASES = (
    Case("seal", _seal),
    Case("seal with a delay", _seal_with_a_delay),
    Case("cancel a batch", _cancel),
    Case("cancel by id", _cancel_by_id, 100_000),
    Case("drop an open batch", _drop),
    Case("expire at once", _expire),
    Case("come due at once", _come_due),
    Case("fail fast at a closed gate", _fail_fast),
    Case("40 refusals beside fail-fast jobs of another model", _fail_fast_of_others),
    Case("accept a chain", _accept_a_chain, 25_000),
    Case("first step of a chain fails", _fail_a_chain, 25_000),
    Case("parent of many jobs fails", _fail_a_fan),
    Case("100 jobs where many models were seen", _many_models, 9_500),
    Case("statistics of many models", _statistics, 9_500),
    Case("live chains, 2.5 s", _live_chains, 50_000),
    Case("100 jobs beside parked readers", _parked_readers, 3_900),
    Case("retry a batch that failed", _retry, 100_000),
    Case("20 pages after a retry", _pages_after_retry, 100_000),
)
