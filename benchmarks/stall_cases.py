"""What happens to many jobs at once: each case first makes them, yields, and then lets it happen."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from aiqueue.batch_protocol import ResultsCall
from aiqueue.engine.schedule_records import SchedulesCall, ScheduleSpec
from aiqueue.errors import RateLimited
from aiqueue.ids import new_id, new_job_ids
from aiqueue.protocol import BatchSpec, EventsCall, Need, Outcome, Submission, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, group, header
from benchmarks.stall_groups import GROUP_CASES
from benchmarks.stall_stage import BATCH, PART, PAYLOAD, Case, Stage, Steps, jobs_of, parts_of, steps_of


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
    for at, part in enumerate(parts_of(ids, PART)):
        made = replace(header(batch_id=f"fan-{at}"), needs=(Need(parent),), on_error="fail")
        await stage.send(SubmitGroup(list(jobs_of(part, made)), batch=BatchSpec(f"fan-{at}", "graph")))
    yield
    await stage.exchange(Outcome(parent, 1, failure=final()))
    await stage.no_live()


async def _many_models(stage: Stage, size: int) -> Steps:
    for part in parts_of(range(size), 500):
        await stage.send(*(group(Submission(*new_job_ids(1), header(model=f"m{n}"), PAYLOAD)) for n in part))
        await stage.exchange(*(completed(job_id) for job_id in await stage.exchange(slots=500)), slots=0)
    yield
    for _ in range(100):
        (job_id,) = await stage.submit(1)
        await stage.exchange(slots=1)
        await stage.exchange(completed(job_id))


async def _statistics(stage: Stage, size: int) -> Steps:
    for part in parts_of(range(size), 500):
        await stage.send(*(group(Submission(*new_job_ids(1), header(model=f"m{n}"), PAYLOAD)) for n in part))
    await stage.exchange(slots=3_000)
    yield
    await stage.service.counted_stats()
    stage.service.pool_loads()


async def _live_chains(stage: Stage, size: int) -> Steps:
    for part in parts_of(range(size), 200):
        await stage.send(
            *(SubmitGroup(list(steps_of(f"c{n}", new_job_ids(2))), batch=BatchSpec(f"c{n}", "chain")) for n in part)
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
    while claimed := await stage.exchange(slots=PART):
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
        await stage.exchange(*(completed(job_id) for job_id in await stage.exchange(slots=PART)))
    yield
    for at in range(20):
        await stage.service.batches.results(ResultsCall(BATCH, at * 100, 100))


async def _dead(stage: Stage, size: int) -> list[str]:
    """Return jobs that are dead letters: none has an attempt left."""
    ids = await stage.submit(size, max_retries=0)
    workers = [f"worker-{at}" for at in range(0, size, PART)]
    claimed = [await stage.exchange(slots=PART, worker=worker) for worker in workers]
    for worker, part in zip(workers, claimed, strict=True):  # all run by now: failures close the gate of their model
        await stage.exchange(*map(failed, part), worker=worker)
    return ids


async def _redrive(stage: Stage, ids: list[str]) -> None:
    for part in parts_of(ids, PART):
        await stage.send(
            *(group(Submission(*new_job_ids(1), replace(header(), redriven_from=job_id), PAYLOAD)) for job_id in part)
        )


async def _redrive_dead_letters(stage: Stage, size: int) -> Steps:
    ids = await _dead(stage, size)
    yield
    await _redrive(stage, ids)


async def _delete_dead_letters(stage: Stage, size: int) -> Steps:
    ids = await _dead(stage, size)
    await _redrive(stage, ids[::2])
    yield
    for part in parts_of(ids, PART):  # as clients do
        assert len(await stage.service.dead_letters.delete(part)) == len(part)


async def _schedules_due(stage: Stage, size: int, *, line: str = "@hourly", passed_s: float = 3_600.0) -> Steps:
    made = header()
    specs = (
        ScheduleSpec(new_id("schedule"), f"schedule {number}", line, made, PAYLOAD, "Europe/London")
        for number in range(size)
    )
    added = await asyncio.gather(*(stage.service.schedules.answer(SchedulesCall("add", spec=spec)) for spec in specs))
    assert all(reply.schedules for reply in added), added
    yield
    stage.clock.advance(passed_s)
    await stage.until(lambda: all(schedule.state.fired for schedule in stage.service._engine.core.schedules))
    await stage.quiet()


def _schedules_after_downtime(stage: Stage, size: int) -> Steps:
    return _schedules_due(stage, size, line="*/5 * * * *", passed_s=3 * 86_400.0)


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
    *GROUP_CASES,
    Case("first step of a chain fails", _fail_a_chain, 25_000),
    Case("parent of many jobs fails", _fail_a_fan),
    Case("100 jobs where many models were seen", _many_models, 9_500),
    Case("statistics of many models", _statistics, 9_500),
    Case("live chains, 2.5 s", _live_chains, 50_000),
    Case("100 jobs beside parked readers", _parked_readers, 3_900),
    Case("schedules due at once", _schedules_due, 1_000),
    Case("schedules after three days down", _schedules_after_downtime, 1_000),
    Case("retry a batch that failed", _retry, 100_000),
    Case("20 pages after a retry", _pages_after_retry, 100_000),
    Case("redrive dead letters", _redrive_dead_letters, 10_000),
    Case("delete dead letters of which half were redriven", _delete_dead_letters, 10_000),
)
