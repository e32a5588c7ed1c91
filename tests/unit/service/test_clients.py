"""Clients and the service: events, lookups, cancels, statistics."""

from __future__ import annotations

import asyncio

import pytest

from aiqueue.levels import AIJobPriority
from aiqueue.protocol import EventsCall, Failure
from aiqueue.testing.jobs import cancelled, completed, failed, group, settings, submission
from aiqueue.views import job_info
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns


async def test_a_jobs_life_is_told_in_order_and_numbered(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    await queue.exchange(completed("a"), slots=0)
    events = await queue.events()
    assert [(event.number, event.name, event.status) for event in events] == [
        (1, "job:submitted", "queued"),
        (2, "job:processing", "processing"),
        (3, "job:completed", "completed"),
    ]
    assert events[2].result == completed("a").result
    assert events[2].worker_id == "worker-1"


async def test_an_event_is_told_when_it_is_on_disk_and_not_before(queue: ServiceHarness) -> None:
    poll = asyncio.create_task(queue.events(wait_s=10.0))
    queue.memory.hold()
    submit = asyncio.create_task(queue.submit("a"))
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)
    await turns()
    assert not poll.done()
    queue.memory.release()
    assert [event.job_id for event in await poll] == ["a"]
    await submit


async def test_event_numbers_go_on_after_a_restart(queue: ServiceHarness) -> None:
    await queue.submit("a")
    after = await queue.crashed()
    await after.submit("b")
    assert [(event.number, event.job_id) for event in await after.events(after=1)] == [(2, "b")]
    reply = await after.service.events(EventsCall("watcher", 0, all_owners=True, wait_s=0.0))
    assert (reply.gap, reply.events, reply.after) == (True, [], 2)
    await after.service.close()


async def test_jobs_are_shown_in_the_order_asked_for_and_unknown_ones_as_none(queue: ServiceHarness) -> None:
    await queue.submit("a", "b")
    views = await queue.service.get_jobs(["b", "nobody", "a", "b"])
    assert [view and view.id for view in views] == ["b", None, "a", "b"]
    assert await queue.service.get_jobs([]) == []


async def test_a_job_is_shown_with_all_that_happened_to_it(queue: ServiceHarness) -> None:
    await queue.submit("a", tags=("t",))
    await queue.claim()
    await queue.service.lose_worker("worker-1", "killed", crashed=True)
    await queue.claim(worker="worker-2")
    queue.clock.advance(2.0)
    await queue.exchange(failed("a", 2), worker="worker-2", slots=0)
    view = await queue.view("a")
    assert (view.status, view.attempt, view.retries, view.crashes) == ("scheduled", 2, 1, 1)
    assert view.run_at == queue.clock.now() + 1.0
    assert view.failure == failed("a").failure
    assert (view.worker_id, view.header.tags, view.finished_at) == ("worker-2", ("t",), 0.0)


async def test_a_job_cancelled_while_it_waits_shows_its_attempts_once_each(queue: ServiceHarness) -> None:
    await queue.submit("a", "b")
    await queue.claim(2)
    late = Failure("timeout", "Provider sim: no answer", retryable=True)  # a 503 would leave the gate one call
    await queue.exchange(failed("a", 1, late), failed("b", 1, late), slots=0)
    queue.clock.advance(5.0)
    assert await queue.claim(2) == ["a", "b"]
    await queue.exchange(failed("b", 2, late), slots=0)
    await queue.service.lose_worker("worker-1", "killed", crashed=True)
    await queue.service.lose_worker("worker-1", "killed", crashed=True)
    await queue.service.cancel(["a", "b"])
    for job_id, outcomes in (("a", ["failed", "lost"]), ("b", ["failed", "failed"])):
        info = job_info(await queue.view(job_id))
        assert [(each.attempt, each.outcome) for each in info.attempts] == [*enumerate(outcomes, 1)]
        assert all(each.worker_id == "worker-1" and each.started_at for each in info.attempts)
        assert (info.status, info.started_at, info.worker_id) == ("cancelled", None, None)
        assert info.error is not None
        assert info.error.kind == "cancelled"


async def test_a_job_that_waits_for_its_second_attempt_shows_the_first_one_among_its_attempts(
    queue: ServiceHarness,
) -> None:
    await queue.submit("a")
    await queue.claim()
    await queue.exchange(failed("a"), slots=0)
    waiting = job_info(await queue.view("a"))
    assert [(each.attempt, each.outcome) for each in waiting.attempts] == [(1, "failed")]
    assert (waiting.status, waiting.started_at, waiting.worker_id) == ("scheduled", None, None)
    queue.clock.advance(5.0)
    await queue.claim()
    running = job_info(await queue.view("a"))
    assert (running.attempts, running.worker_id) == (waiting.attempts, "worker-1")
    assert running.started_at is not None


async def test_a_lookup_waits_for_what_was_submitted_before_it(queue: ServiceHarness) -> None:
    queue.memory.hold()
    submit = asyncio.create_task(queue.submit("a"))
    await turns(1)
    lookup = asyncio.create_task(queue.view("a"))
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)
    await turns()
    assert not lookup.done()
    queue.memory.release()
    assert (await lookup).id == "a"
    await submit


async def test_a_payload_is_shown_only_when_asked_for(queue: ServiceHarness) -> None:
    await queue.service.submit([group(submission("a", payload=b"prompt"))])
    (without,) = await queue.service.get_jobs(["a"])
    (with_it,) = await queue.service.get_jobs(["a"], with_payload=True)
    assert without is not None
    assert with_it is not None
    assert (without.payload, with_it.payload) == (b"", b"prompt")


async def test_a_cancelled_queued_job_is_gone_and_its_payload_is_forgotten(queue: ServiceHarness) -> None:
    await queue.submit("a", "b")
    (reply,) = await queue.service.cancel(["a"])
    assert (reply.cancelled, reply.status) == (True, "cancelled")
    assert await queue.claim(5) == ["b"]
    assert queue.service._workers.payloads._bytes == 0


async def test_a_cancel_reaches_a_worker_that_waits(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.claim()
    poll = await queue.park()
    (reply,) = await queue.service.cancel(["a"])
    assert (reply.cancelled, reply.status) == (True, "cancelling")
    assert (await poll).cancels == [("a", 1)]
    await queue.exchange(cancelled("a"), slots=0)
    assert (await queue.view("a")).status == "cancelled"


async def test_a_cancel_of_what_has_ended_or_never_was_says_so(queue: ServiceHarness) -> None:
    await queue.submit("done", "live")
    await queue.claim()
    await queue.exchange(completed("done"), slots=0)
    replies = await queue.service.cancel(["done", "nobody", "live"])
    assert [(reply.job_id, reply.cancelled, reply.status) for reply in replies] == [
        ("done", False, "completed"),
        ("nobody", False, ""),
        ("live", True, "cancelled"),
    ]


async def test_a_cancel_is_answered_when_it_is_on_disk_and_not_before(queue: ServiceHarness) -> None:
    await queue.submit("a")
    queue.memory.hold()
    cancel = asyncio.create_task(queue.service.cancel(["a"]))
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)
    await turns()
    assert not cancel.done()
    queue.memory.release()
    await cancel


async def test_statistics_count_every_job_once(queue: ServiceHarness) -> None:
    await queue.submit("done", "bad", "stopped", "retried", "running", level=AIJobPriority.HIGH, batch_id="b-1")
    await queue.submit("waiting-1", "waiting-2", level=AIJobPriority.LOW)
    await queue.claim(5)
    await queue.service.cancel(["stopped"])
    queue.clock.advance(4.0)
    outcomes = (completed("done"), failed("bad", failure=failed("x").failure), cancelled("stopped"), failed("retried"))
    outcomes[1].failure.retryable = False  # type: ignore[union-attr]
    await queue.exchange(*outcomes, slots=0)
    shown = queue.service.stats()
    queue_now = shown.adapter
    assert (queue_now.total_jobs, queue_now.queued_jobs, queue_now.scheduled_jobs, queue_now.processing_jobs) == (
        7,
        2,
        1,
        1,
    )
    assert (queue_now.completed_jobs, queue_now.failed_jobs, queue_now.cancelled_jobs) == (1, 1, 1)
    assert queue_now.oldest_waiting_s == 4.0
    high = queue_now.levels[1]
    assert (high.level, high.processing, high.completed, high.sla_met, high.sla_compliance) == ("high", 1, 1, 1, 1.0)
    assert high.latency_p50_ms == high.latency_p99_ms == 4_000.0
    assert [(lane.pool, lane.queued, lane.processing) for lane in queue_now.lanes] == [("pool", 2, 1)]
    workers = queue_now.worker_pool_stats
    assert (workers.total_workers, workers.busy_workers, workers.idle_workers) == (1, 1, 0)
    assert workers.average_processing_time_ms == 4_000.0
    assert (shown.orchestrator.total_batches, shown.orchestrator.active_batches) == (1, 1)


async def test_statistics_of_an_empty_queue_have_no_percentiles(queue: ServiceHarness) -> None:
    shown = queue.service.stats().adapter
    assert (shown.total_jobs, shown.oldest_waiting_s, shown.lanes) == (0, 0.0, [])
    assert all(level.latency_p50_ms is None and level.sla_compliance == 1.0 for level in shown.levels)


async def test_statistics_see_the_oldest_job_behind_a_more_urgent_one(queue: ServiceHarness) -> None:
    await queue.submit("old", level=AIJobPriority.LOW)
    queue.clock.advance(600.0)
    await queue.submit("new", level=AIJobPriority.URGENT)
    assert queue.service.stats().adapter.oldest_waiting_s == 600.0


async def test_close_sends_waiting_readers_home() -> None:
    queue = ServiceHarness(settings())
    poll = asyncio.create_task(queue.events(wait_s=60.0))
    worker = await queue.park()
    await queue.service.close()
    assert await poll == []
    assert (await worker).claims == []


async def test_an_announced_event_is_numbered_with_the_others_and_its_number_survives_a_crash() -> None:
    queue = ServiceHarness()
    await queue.submit("a")
    assert await queue.service.announce("worker-pool:scaled-down", {"previous_size": 2, "new_size": 1}) == 2
    after = await queue.crashed()
    await after.submit("b")
    assert [event.number for event in await after.events(after=2)] == [3]
    await after.service.close()


async def test_only_known_events_of_a_bounded_size_can_be_announced(queue: ServiceHarness) -> None:
    with pytest.raises(ValueError, match="unknown event 'job:completed'; what can be announced: worker-pool:scaled"):
        await queue.service.announce("job:completed", {})
    with pytest.raises(ValueError, match="at most 4096 are kept"):
        await queue.service.announce("worker-pool:worker-unhealthy", {"reason": "x" * 5_000})
    assert await queue.events() == []
