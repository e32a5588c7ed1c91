"""What somebody still needs is not forgotten: a key while its job lives, an input of a step, what ended last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.config import RetentionConfig
from aiqueue.engine.effects import Effects, Rows
from aiqueue.ids import ids_from, new_job_ids
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import completed, failed, group, header, settings, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until

HOUR_S = 3_600.0


@pytest.fixture
async def few() -> AsyncIterator[ServiceHarness]:
    """Return a service that keeps two ended jobs."""
    made = ServiceHarness(settings().model_copy(update={"retention": RetentionConfig(max_jobs=2)}))
    yield made
    await made.service.close()


async def forget(queue: ServiceHarness, *, after_s: float = 61.0) -> None:
    """Let time pass, in which the queue lives, and retention make a pass."""
    queue.clock.advance(after_s)
    queue.service._ticker.ticked_at = queue.clock.now()
    queue.service._ticker.tick()
    await queue.forget_old()


async def submit_with_key(queue: ServiceHarness, job_id: str, delay_ms: int) -> str:
    """Submit a job with a key; return the id of the job that the key stands for."""
    job = submission(job_id, replace(header(), idempotency_key="scope:nightly", delay_ms=delay_ms))
    reply = await queue.service.submit_and_linger([group(job)], 0.0)
    assert reply.groups == [None]
    return reply.known.get(0, job_id)


async def test_a_key_stands_for_its_job_while_that_waits_and_for_a_day_after_its_end(queue: ServiceHarness) -> None:
    two_days_ms = 48 * 3_600_000
    await submit_with_key(queue, "first", two_days_ms)
    await forget(queue, after_s=25 * HOUR_S)
    assert await submit_with_key(queue, "second", two_days_ms) == "first"
    await forget(queue, after_s=23 * HOUR_S)
    assert await queue.claim() == ["first"]
    await queue.exchange(completed("first"), slots=0)
    await forget(queue, after_s=23.9 * HOUR_S)
    assert await submit_with_key(queue, "third", two_days_ms) == "first"
    await forget(queue, after_s=0.2 * HOUR_S)
    assert await submit_with_key(queue, "fourth", two_days_ms) == "fourth"


@pytest.mark.parametrize("deleted", [[0, 1], [0], [1]])
async def test_a_list_that_is_sent_again_under_its_key_runs_nothing_again_though_jobs_of_it_were_deleted(
    queue: ServiceHarness, deleted: list[int]
) -> None:
    first, second = ids_from(new_job_ids(1)[0], 2)
    keyed = replace(header(), idempotency_key="scope:nightly")

    async def submit() -> None:
        sent = group(submission(first, keyed), submission(second), maybe_known=True)
        assert (await queue.service.submit_and_linger([sent], 0.0)).groups == [None]

    await submit()
    for job_id in await queue.claim(2):
        await queue.exchange(completed(job_id), slots=0)
    gone = [row.seq for row in queue.journal.jobs([(first, second)[at] for at in deleted]).values()]
    await queue.service._commits.append(Effects(rows=Rows(deletes=gone)))
    await submit()
    assert queue.ready() == 0


async def chain(queue: ServiceHarness) -> None:
    """Submit a chain of two, let the first step complete, and pause it."""
    first = submission("one", header(batch_id="chain"))
    second = submission("two", replace(header(batch_id="chain"), needs=(Need("one", ("in",)),), on_error="fail"))
    spec = BatchSpec("chain", kind="chain")
    assert await queue.service.submit([SubmitGroup([first, second], batch=spec)]) == [None]
    assert await queue.claim() == ["one"]
    await queue.service.batches.call(BatchCall("chain", "pause"))
    await queue.exchange(completed("one"), slots=0)


async def goes_on(queue: ServiceHarness) -> None:
    """Check that the second step is given what the first one came to."""
    await queue.service.batches.call(BatchCall("chain", "resume"))
    (claim,) = (await queue.exchange(slots=4)).claims
    assert claim.inputs is not None
    assert (claim.job_id, [given.status for given in claim.inputs]) == ("two", ["completed"])
    await queue.exchange(completed("two"), slots=0)


async def test_a_chain_that_was_paused_for_longer_than_jobs_are_kept_goes_on(queue: ServiceHarness) -> None:
    await chain(queue)
    await forget(queue, after_s=25 * HOUR_S)
    await goes_on(queue)
    await forget(queue)
    assert await queue.service.get_jobs(["one"]) == [None], "nobody needs it any more"


async def test_a_chain_goes_on_though_more_jobs_than_are_kept_ended_since(few: ServiceHarness) -> None:
    await chain(few)
    await few.submit("a", "b", "c", "d")
    for job_id in await few.claim(4):
        await few.exchange(completed(job_id), slots=0)
    await forget(few)
    await goes_on(few)


async def test_a_job_that_waited_long_is_kept_after_its_end_while_others_that_ended_earlier_go(
    few: ServiceHarness,
) -> None:
    await few.submit("waits", delay_ms=1_000)
    for job_id in ("a", "b", "c"):
        await few.submit(job_id)
        assert await few.claim() == [job_id]
        await few.exchange(completed(job_id), slots=0)
    few.clock.advance(1.0)
    few.service._ticker.tick()
    assert await few.claim() == ["waits"]
    await few.exchange(completed("waits"), slots=0)
    await forget(few)
    kept = await few.service.get_jobs(["a", "b", "c", "waits"])
    assert [view.id for view in kept if view] == ["c", "waits"]


@pytest.mark.parametrize("how", ["drop", "delete"])
async def test_jobs_whose_deletion_is_not_on_disk_yet_do_not_count_against_the_number_kept(
    few: ServiceHarness, how: str
) -> None:
    for job_id in ("first", "second"):
        await few.submit(job_id)
        await few.exchange(*map(completed, await few.claim(4)), slots=0)
        few.clock.advance(1.0)
    await forget(few)
    batch = header(batch_id="b", max_retries=0)
    jobs = [submission(f"b{at}", replace(batch, index=at)) for at in range(4)]
    assert await few.service.submit([SubmitGroup(jobs, batch=BatchSpec("b", is_open=how == "drop"))]) == [None]
    if how == "delete":
        await few.exchange(*map(failed, await few.claim(4)), slots=0)
    few.memory.hold()
    deletion: asyncio.Future[object] = asyncio.ensure_future(
        few.service.batches.call(BatchCall("b", "drop"))
        if how == "drop"
        else few.service.dead_letters.delete([job.id for job in jobs])
    )
    await until(few.memory.held.is_set)
    under_way = few.service._commits._waiting
    commits = len(under_way)
    forgetting = asyncio.create_task(few.forget_old())
    await until(lambda: forgetting.done() or len(under_way) > commits)
    few.memory.release()
    await asyncio.gather(deletion, forgetting)
    assert few.journal.states(["first", "second"]) == {"first": "completed", "second": "completed"}
