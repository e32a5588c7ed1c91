"""Batches that are given up before they are sealed: nothing of them is seen, waited for or kept."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import header, submission
from tests.tools.service_harness import ServiceHarness

MANY = 2_500  # more than are forgotten in one turn


def part(batch_id: str, *ids: str, needs: str = "", on_error: str = "", is_open: bool = True) -> SubmitGroup:
    """Return jobs as (the first part of) a batch of the run ``run``."""
    of_batch = replace(header(batch_id=batch_id), on_error=on_error, needs=(Need(needs),) if needs else ())
    spec = BatchSpec(batch_id, is_open=is_open, run="run" if is_open else "")
    return SubmitGroup([submission(job_id, of_batch, b"12345") for job_id in ids], batch=spec)


@pytest.mark.parametrize("call", [BatchCall("open", "drop"), BatchCall("run", "drop_run")], ids=["drop", "drop_run"])
async def test_a_drop_is_answered_when_nothing_is_left(queue: ServiceHarness, call: BatchCall) -> None:
    ids = [f"job-{number}" for number in range(MANY)]
    assert await queue.service.submit([part("open", *ids)]) == [None]
    live = queue.service._engine.core.live
    answers = [asyncio.ensure_future(queue.service.batches.call(call)) for _ in range(2)]
    left: list[int] = []
    answers[0].add_done_callback(lambda _: left.append(len(live)))
    assert [view.status for view in await asyncio.gather(*answers)] == ["dropped", "dropped"]
    assert left == [0]
    assert await queue.service.get_jobs(ids) == [None] * MANY
    assert (queue.service._engine.core.live, queue.journal.count_jobs()) == ({}, 0)
    assert await queue.service.submit([part("open", *ids)]) == [None], "all of it can be sent again at once"


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_a_drop_of_a_run_that_comes_again_leaves_what_came_after_it(
    queue: ServiceHarness, is_sealed: bool
) -> None:
    drop = BatchCall("run", "drop_run", token="first")
    await queue.service.batches.call(drop)
    assert await queue.service.submit([part("first", "a")]) == [None]
    if is_sealed:
        await queue.service.batches.call(BatchCall("first", "seal", 1))
        assert await queue.service.submit([part("second", "b")]) == [None]
    await queue.service.batches.call(drop)
    assert await queue.service.batches.states(["a", "b"]) == (["queued", "blocked"] if is_sealed else ["blocked", ""])


async def test_what_is_just_being_dropped_is_unknown(queue: ServiceHarness) -> None:
    ids = [f"job-{number}" for number in range(MANY)]
    assert await queue.service.submit([part("open", *ids)]) == [None]
    queue.service.batches._steer(BatchCall("open", "drop"))
    queue.service._ticker.close()  # so that no more than a first slice is gone
    assert queue.service._engine.core.live
    assert set(await queue.service.get_jobs(ids)) == {None}
    assert set(await queue.service.batches.states(ids)) == {""}


@pytest.mark.parametrize(("on_error", "state"), [("fail", "failed"), ("skip", "queued"), ("include", "queued")])
async def test_a_job_that_needs_one_of_a_dropped_batch_goes_on_as_for_any_that_vanished(
    queue: ServiceHarness, on_error: str, state: str
) -> None:
    assert await queue.service.submit([part("open", "gone")]) == [None]
    assert await queue.service.submit([part("waits", "child", needs="gone", on_error=on_error, is_open=False)]) == [
        None
    ]
    await queue.service.batches.call(BatchCall("open", "drop"))
    assert (await queue.view("child")).status == state
    assert (queue.ready(), queue.service._engine.core.blocked) == (int(state == "queued"), 0)
    links = queue.service._engine.core.links
    assert len(links.needs) == int(state == "queued")
    after = await queue.crashed()
    assert (await after.view("child")).status == state
    await after.service.close()


async def test_a_dropped_chain_leaves_no_event_and_no_job(queue: ServiceHarness) -> None:
    assert await queue.service.submit([part("open", *(f"job-{number}" for number in range(1_500)))]) == [None]
    assert await queue.service.submit(
        [SubmitGroup(part("open", "child", needs="job-0", on_error="fail").jobs, part_of="open")]
    ) == [None]
    before = len(await queue.events())
    await queue.service.batches.call(BatchCall("open", "drop"))
    assert len(await queue.events()) == before
    assert queue.journal.count_jobs() == 0


async def test_the_payloads_of_a_dropped_batch_leave_the_cache(queue: ServiceHarness) -> None:
    assert await queue.service.submit([part("open", "a", "b")]) == [None]
    assert queue.service._workers.payloads._bytes == 10
    await queue.service.batches.call(BatchCall("open", "drop"))
    assert (queue.service._workers.payloads._bytes, queue.service._workers.payloads._kept) == (0, {})
