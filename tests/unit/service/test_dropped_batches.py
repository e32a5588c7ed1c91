"""Batches that are given up before they are sealed: nothing of them is seen, waited for or kept."""

from __future__ import annotations

import asyncio
import threading

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, ResultsCall
from aiqueue.engine import Tick
from aiqueue.engine.engine import BatchRow
from aiqueue.errors import BatchNotFound, QueueUnavailable
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.service.recovery import load_engine
from aiqueue.testing.jobs import header, submission
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until

MANY = 2_500  # more than are forgotten in one turn
IDS = [f"job-{number}" for number in range(MANY)]


def part(batch_id: str, *ids: str, needs: str = "", on_error: str = "", is_open: bool = True) -> SubmitGroup:
    """Return jobs as (the first part of) a batch of the run ``run``."""
    of_batch = replace(header(batch_id=batch_id), on_error=on_error, needs=(Need(needs),) if needs else ())
    spec = BatchSpec(batch_id, is_open=is_open, run="run" if is_open else "")
    return SubmitGroup([submission(job_id, of_batch, b"12345") for job_id in ids], batch=spec)


async def half_dropped(queue: ServiceHarness, sent: SubmitGroup | None = None) -> None:
    """Begin to drop the batch "open", and tick no more: a first slice of it is gone."""
    assert await queue.service.submit([sent or part("open", *IDS)]) == [None]
    queue.service.batches._steer(BatchCall("open", "drop"))
    queue.service._ticker.close()
    assert queue.service._engine.core.live


async def go_on(queue: ServiceHarness) -> None:
    """Let the drop end, and the disk have all of it."""

    def is_gone() -> bool:
        queue.service._ticker.tick()
        return not queue.service._engine.core.groups.stopping

    await turns()
    await until(is_gone)
    await queue.service.get_jobs([])


def known(group: SubmitGroup) -> SubmitGroup:
    """Return a group that may have been sent before."""
    group.maybe_known = True
    return group


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


class SlowToFindBatches(MemoryJournal):
    """Lets the first read of a batch wait until ``may_read`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.may_read = threading.Event(), threading.Event()

    def batch(self, batch_id: str) -> BatchRow | None:
        """Return a batch as it was when this was called."""
        found = super().batch(batch_id)
        if not self.reads.is_set():
            self.reads.set()
            self.may_read.wait()
        return found


async def test_a_drop_of_a_run_leaves_the_batch_that_begins_while_it_reads() -> None:
    journal = SlowToFindBatches()
    queue = ServiceHarness(journal=journal)
    drop = asyncio.create_task(queue.service.batches.call(BatchCall("run", "drop_run", token="first")))
    await until(journal.reads.is_set)  # its answer got lost, and its repeat's did not
    assert await queue.service.submit([part("first", "a")]) == [None]
    journal.may_read.set()
    await drop
    assert await queue.service.batches.states(["a"]) == ["blocked"]
    await queue.service.close()


async def test_what_is_just_being_dropped_is_unknown(queue: ServiceHarness) -> None:
    await half_dropped(queue)
    assert set(await queue.service.get_jobs(IDS)) == {None}
    assert set(await queue.service.batches.states(IDS)) == {""}


async def test_a_job_that_is_just_being_dropped_is_not_cancelled_and_leaves_no_row(queue: ServiceHarness) -> None:
    await half_dropped(queue)
    before = await queue.events()
    replies = await queue.service.cancel(IDS)
    assert {(reply.status, reply.cancelled) for reply in replies} == {("", False)}
    await go_on(queue)
    assert await queue.events() == before
    assert (queue.journal.count_jobs(), await queue.service.get_jobs(IDS[-3:])) == (0, [None] * 3)


@pytest.mark.parametrize("action", ["status", "seal", "touch", "cancel", "pause", "resume", "retry_failed"])
async def test_a_batch_that_is_just_being_dropped_is_unknown_to_every_call(queue: ServiceHarness, action: str) -> None:
    await half_dropped(queue)
    with pytest.raises(BatchNotFound):
        await queue.service.batches.call(BatchCall("open", action, MANY))
    with pytest.raises(BatchNotFound):
        await queue.service.batches.results(ResultsCall("open", 0, 10, with_live=True))


async def test_a_job_that_is_just_being_dropped_does_not_expire(queue: ServiceHarness) -> None:
    sent = part("open", *IDS)
    for job in sent.jobs:
        job.header = replace(job.header, expires_in_ms=1_000)
    await half_dropped(queue, sent)
    before = await queue.events()
    queue.clock.advance(2.0)
    await go_on(queue)
    assert await queue.events() == before
    assert (queue.journal.count_jobs(), queue.service._engine.core.counters.ended) == (0, {})


async def test_a_deadline_that_passes_in_a_drop_makes_no_difference_between_memory_and_disk(
    queue: ServiceHarness,
) -> None:
    sent = part("open", *IDS)
    sent.jobs[-1].header = replace(sent.jobs[-1].header, expires_in_ms=1_000)
    await half_dropped(queue, sent)
    queue.clock.advance(2.0)
    queue.service._step(Tick())
    await queue.service._commits.settled()
    mine = queue.service._engine
    assert mine.core.live, "the drop goes on"
    assert mine.fingerprint() == load_engine(queue.settings, queue.journal, queue.clock).fingerprint()


@pytest.mark.parametrize("late", [False, True], ids=["before the drop", "after a part of it"])
async def test_jobs_that_ended_before_the_drop_go_with_their_batch(queue: ServiceHarness, late: bool) -> None:
    gone = [IDS[-2] if late else IDS[0], IDS[1]]
    sent = part("open", *IDS)
    sent.jobs[-1].header = replace(sent.jobs[-1].header, expires_in_ms=1_000)
    assert await queue.service.submit([sent]) == [None]
    await queue.service.cancel(gone)
    queue.clock.advance(2.0)
    queue.service._ticker.tick()
    assert [(await queue.view(job_id)).status for job_id in (*gone, IDS[-1])] == ["cancelled", "cancelled", "expired"]
    queue.service.batches._steer(BatchCall("open", "drop"))
    queue.service._ticker.close()
    assert set(await queue.service.get_jobs(IDS)) == {None}
    assert set(await queue.service.batches.states(IDS)) == {""}
    await go_on(queue)
    counters = queue.service._engine.core.counters
    assert (queue.journal.count_jobs(), counters.accepted, counters.ended, counters.batches) == (0, 0, {}, 0)
    assert await queue.service.submit([known(part("open", *IDS))]) == [None]
    assert {view.status for view in await queue.service.get_jobs(IDS) if view} == {"blocked"}


async def test_a_drop_goes_on_after_a_crash_and_shows_nothing_again(queue: ServiceHarness) -> None:
    await half_dropped(queue)
    await queue.service._commits.settled()
    after = await queue.crashed()
    assert after.service._engine.core.live
    assert set(await after.service.get_jobs(IDS)) == {None}
    (refusal,) = await after.service.submit([SubmitGroup(part("open", "more").jobs, part_of="open")])
    assert refusal is not None
    assert refusal.kind == "batch_not_found"
    with pytest.raises(BatchNotFound):
        await after.service.batches.call(BatchCall("open", "seal", MANY))
    await until(lambda: not after.service._engine.core.live)
    await after.service.get_jobs([])
    assert (after.journal.count_jobs(), after.service._engine.core.counters.batches) == (0, 0)
    await after.service.close()


@pytest.mark.parametrize("batch", ["open", "other"])
@pytest.mark.parametrize("has_ended", [False, True])
async def test_what_is_sent_again_during_the_drop_is_accepted_after_it_as_new(
    queue: ServiceHarness, batch: str, has_ended: bool
) -> None:
    assert await queue.service.submit([part("open", *IDS)]) == [None]
    if has_ended:
        await queue.service.cancel(IDS[-2:])
    queue.service.batches._steer(BatchCall("open", "drop"))
    queue.service._ticker.close()
    again = asyncio.ensure_future(queue.service.submit([known(part(batch, *IDS[-2:]))]))
    await go_on(queue)
    assert await again == [None]
    assert [view and view.status for view in await queue.service.get_jobs(IDS[-2:])] == ["blocked"] * 2
    assert queue.journal.count_jobs() == 2


@pytest.mark.parametrize("batch", ["open", "other"])
async def test_what_is_sent_again_before_the_drop_is_on_disk_is_accepted_as_new(
    queue: ServiceHarness, batch: str
) -> None:
    assert await queue.service.submit([part("open", "a", "b")]) == [None]
    queue.memory.hold()
    drop = asyncio.ensure_future(queue.service.batches.call(BatchCall("open", "drop")))
    again = asyncio.ensure_future(queue.service.submit([known(part(batch, "a", "b"))]))
    await until(queue.memory.held.is_set)
    await turns()
    assert not drop.done()
    queue.memory.release()
    assert [(await drop).status, await again] == ["dropped", [None]]
    assert (queue.journal.count_jobs(), (await queue.view("a")).header.batch_id) == (2, batch)


async def test_a_job_that_needs_one_of_a_batch_that_is_just_being_dropped_is_refused(queue: ServiceHarness) -> None:
    await half_dropped(queue)
    child = part("waits", "child", needs=IDS[-1], on_error="fail", is_open=False)
    submit = asyncio.ensure_future(queue.service.submit([child]))
    await go_on(queue)
    (refusal,) = await submit
    assert refusal is not None
    assert f"needs job {IDS[-1]}, which is not known" in refusal.message


async def test_a_key_of_a_dropped_batch_is_free_also_while_that_is_being_dropped(queue: ServiceHarness) -> None:
    sent, again = part("open", *IDS), part("open-2", "new")
    for group in (sent, again):
        group.jobs[0].header = replace(group.jobs[0].header, idempotency_key="scope:key")
    await half_dropped(queue, sent)
    submit = asyncio.ensure_future(queue.service.submit_and_linger([again], 0.0))
    await go_on(queue)
    reply = await submit
    assert (reply.groups, reply.known) == ([None], {})
    assert (await queue.view("new")).status == "blocked"


async def test_a_batch_that_was_sealed_is_not_said_to_be_dropped(queue: ServiceHarness) -> None:
    assert await queue.service.submit([part("open", "a")]) == [None]
    await queue.service.batches.call(BatchCall("open", "seal", 1))
    assert (await queue.service.batches.call(BatchCall("open", "drop"))).status == "processing"
    assert (await queue.view("a")).status == "queued"


async def test_those_who_wait_for_a_drop_are_answered_though_the_id_is_used_again_at_once(
    queue: ServiceHarness,
) -> None:
    await half_dropped(queue)
    drop = asyncio.ensure_future(queue.service.batches.call(BatchCall("open", "drop")))
    await turns()
    service = queue.service
    while "open" in service._engine.core.groups.live:
        service._apply(Tick())  # as a command that is no tick of the service, but does a part of the drop
    assert await service.submit([known(part("open", "a"))]) == [None]
    service._ticker.tick()
    assert (await drop).status == "dropped"
    assert (await queue.view("a")).status == "blocked"


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


async def test_nobody_begins_to_wait_for_a_dropped_batch_when_the_queue_is_closed(queue: ServiceHarness) -> None:
    await half_dropped(queue)
    (group,) = queue.service._drops.under_way
    await queue.service.close()
    with pytest.raises(QueueUnavailable):
        async with asyncio.timeout(60.0):
            await queue.service._drops.gone(group)
