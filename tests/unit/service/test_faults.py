"""An engine that raises ends the queue's process, which goes on from its journal; what did it does not do so again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine import Tick
from aiqueue.engine.states import JobState
from aiqueue.errors import QueueFault, QueueUnavailable
from aiqueue.journal.base import JournalRefused
from aiqueue.protocol import BatchSpec, EventsCall, Need, Outcome, SubmitGroup
from aiqueue.testing.jobs import completed, final, group, header, submission
from tests.tools.marked_engine import break_on
from tests.tools.service_harness import ServiceHarness

ALL = frozenset(JobState)
FAULT = "met a fault"


class Queue:
    """A queue that comes back with the same bug each time its process ends, and counts how often that was."""

    def __init__(self, bug: Callable[[Any], None]) -> None:
        self.bug, self.ends = bug, 0
        self.now = ServiceHarness()
        bug(self.now.service._engine)

    async def back(self) -> ServiceHarness:
        """Return the queue that comes after the one that must have ended."""
        assert self.now.service._faults.failed
        self.ends += 1
        self.now = await self.now.crashed()
        self.bug(self.now.service._engine)
        return self.now

    async def send(self, *groups: SubmitGroup) -> list[str]:
        """Submit, and again as a client does, until there is an answer."""
        while True:
            try:
                return [refusal.kind if refusal else "" for refusal in await self.now.service.submit(groups)]
            except QueueUnavailable:
                await self.back()
                for each in groups:
                    each.maybe_known = True

    async def report(self, *outcomes: Outcome, slots: int = 0) -> None:
        """Report outcomes, and again as a worker does, until there is an answer."""
        while True:
            try:
                await self.now.exchange(*outcomes, slots=slots)
                return
            except QueueUnavailable:
                await self.back()


def bug(job_id: str, *moves: JobState, submit: bool = False) -> Callable[[Any], None]:
    return lambda engine: break_on(engine, job_id, moves, submit=submit)


async def test_a_fault_answers_nobody_wrongly_and_is_logged_without_what_jobs_say(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = Queue(bug("bad", submit=True))
    await queue.now.submit("good")
    with caplog.at_level(logging.CRITICAL), pytest.raises(QueueUnavailable, match=FAULT):
        await queue.now.service.submit([group(submission("bad", payload=b"secret"))])
    for ask in (queue.now.submit("later"), queue.now.exchange(slots=1), queue.now.service.get_jobs(["good"])):
        with pytest.raises(QueueUnavailable, match=FAULT):
            await ask
    assert "Submit failed with ZeroDivisionError at marked_engine.py" in caplog.text
    assert "secret" not in caplog.text
    assert "bad" not in caplog.text
    after = await queue.back()
    assert await after.claim(5) == ["good"]
    await after.service.close()


async def test_a_submit_that_ended_the_process_is_refused_when_it_is_sent_again() -> None:
    queue = Queue(bug("bad", submit=True))
    assert await queue.send(group("bad")) == ["queue_fault"]
    assert await queue.send(group("bad"), group("good")) == ["queue_fault", ""]
    assert queue.ends == 1
    assert await queue.now.claim(5) == ["good"]
    await queue.now.service.close()


async def test_another_submit_that_begins_with_the_same_job_is_accepted() -> None:
    queue = Queue(bug("bad", submit=True))
    assert await queue.send(group("a", "bad")) == ["queue_fault"]
    assert await queue.send(group("a")) == [""]
    assert queue.ends == 1
    await queue.now.service.close()


async def test_submits_of_others_in_the_same_call_are_accepted_and_the_bad_one_is_refused() -> None:
    queue = Queue(bug("bad", submit=True))
    groups = [group(f"good-{number}") for number in range(4)]
    answers = await queue.send(*groups[:2], group("bad"), *groups[2:])
    assert answers == ["", "", "queue_fault", "", ""]
    assert queue.ends == 2, "once together, once alone"
    assert sorted(await queue.now.claim(9)) == [f"good-{number}" for number in range(4)]
    await queue.now.service.close()


async def test_an_outcome_that_ended_the_process_fails_its_job_and_the_others_of_its_report_are_taken() -> None:
    queue = Queue(bug("bad", JobState.COMPLETED))
    await queue.now.submit("a", "bad", "b")
    assert await queue.now.claim(3) == ["a", "bad", "b"]
    await queue.report(completed("a"), completed("bad"), completed("b"))
    views = await queue.now.service.get_jobs(["a", "bad", "b"])
    assert [view.status for view in views if view] == ["completed", "failed", "completed"]
    assert (await queue.now.view("bad")).failure.kind == "worker_fault"  # type: ignore[union-attr]
    assert queue.ends == 2
    await queue.now.service.close()


async def test_a_job_that_the_engine_can_not_even_fail_is_set_aside_with_what_needs_it() -> None:
    queue = Queue(bug("bad", *(ALL - {JobState.PROCESSING})))
    jobs = [submission(job_id, header(batch_id="b")) for job_id in ("bad", "good")]
    child = submission("child", replace(header(batch_id="b"), needs=(Need("bad"),), on_error="fail"))
    await queue.send(SubmitGroup([*jobs, child], batch=BatchSpec("b")))
    assert await queue.now.claim(2) == ["bad", "good"]
    await queue.report(completed("bad"), completed("good"))
    assert queue.ends == 3
    views = await queue.now.service.get_jobs(["bad", "good", "child"])
    assert [view.status for view in views if view] == ["failed", "completed", "failed"]
    assert [view.failure.kind for view in views if view and view.failure] == ["worker_fault", "dependency_failed"]
    batch = await queue.now.service.batches.call(BatchCall("b"))
    assert (batch.status, batch.ended) == ("completed", {"failed": 2, "completed": 1})
    told = await queue.now.events(queue.now.service._log._first - 1)
    assert {event.job_id for event in told if event.name == "job:failed"} == {"bad", "child"}
    last = await queue.now.crashed()
    assert last.service._engine.core.live == {}
    await last.service.close()


async def test_a_job_at_which_time_alone_ends_the_process_is_set_aside_and_others_go_on() -> None:
    queue = Queue(bug("bad", JobState.QUEUED))
    await queue.now.submit("bad", delay_ms=1_000)
    await queue.now.submit("good")
    for _ in range(3):
        queue.now.clock.advance(2.0)
        with pytest.raises(QueueUnavailable, match=FAULT):
            queue.now.service._apply(Tick())
        await queue.back()
    queue.now.clock.advance(2.0)
    queue.now.service._apply(Tick())
    assert (await queue.now.view("bad")).status == "failed"
    assert await queue.now.claim(5) == ["good"]
    await queue.now.service.close()


async def test_ticks_that_end_the_process_again_and_again_become_rare() -> None:
    queue = Queue(lambda engine: None)
    for number in range(4):
        assert queue.now.service._faults.pause_s() == (0.0 if number < 3 else 8.0)
        queue.now.service._faults.trip("Tick", ZeroDivisionError())
        await queue.back()
    assert queue.now.service._faults.pause_s() == 16.0
    queue.now.clock.advance(3_700.0)
    assert queue.now.service._faults.pause_s() == 0.0
    await queue.now.service.close()


@pytest.mark.parametrize("action", ["pause", "cancel", "retry_failed"])
async def test_a_call_to_a_batch_that_ended_the_process_is_refused_when_it_is_made_again(action: str) -> None:
    def broken(engine: Any) -> None:
        engine.core.groups.refill = engine.core.move = lambda *_, **__: 1 // 0
        engine.core.groups.add = lambda *_, **__: 1 // 0

    queue = Queue(lambda engine: None)
    await queue.send(SubmitGroup([submission("a", header(batch_id="b"))], batch=BatchSpec("b")))
    if action == "retry_failed":
        assert await queue.now.claim(1) == ["a"]
        await queue.report(Outcome("a", 1, failure=final()))
    broken(queue.now.service._engine)
    with pytest.raises(QueueUnavailable, match=FAULT):
        await queue.now.service.batches.call(BatchCall("b", action))
    after = await queue.back()
    with pytest.raises(QueueFault, match="ended the queue's process"):
        await after.service.batches.call(BatchCall("b", action))
    assert (await after.service.batches.call(BatchCall("b"))).spec.id == "b"
    await after.service.close()


async def test_what_can_not_be_published_ends_the_process(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue.service._log, "publish", lambda events: 1 // 0)
    assert await queue.submit("a") is None  # on disk
    assert queue.service._faults.failed.startswith("the event log failed with ZeroDivisionError")


async def test_a_commit_that_the_journal_refuses_ends_the_process_and_acknowledges_nothing(
    queue: ServiceHarness,
) -> None:
    await queue.submit("a")
    queue.memory.fail_next(error=JournalRefused("'b' can't become number 2 of jobs"))
    with pytest.raises(QueueUnavailable, match="can't become number 2"):
        await queue.submit("b")
    assert "'b' can't become number 2" in queue.service._faults.failed
    after = await queue.crashed()
    assert await after.claim(5) == ["a"]
    await after.service.close()


async def test_a_restart_is_told_with_its_reason_as_an_event_and_in_the_statistics() -> None:
    queue = Queue(bug("bad", submit=True))
    assert queue.now.service.stats().adapter.restarts == 0
    await queue.send(group("bad"))
    (event,) = [event for event in await queue.now.events() if event.name == "queue:restarted"]
    assert b"Submit failed with ZeroDivisionError" in event.data
    stats = queue.now.service.stats().adapter
    assert (stats.restarts, stats.restart_reason.partition(" at ")[0]) == (1, "Submit failed with ZeroDivisionError")
    assert stats.restarted_at is not None
    quiet = await queue.now.crashed()  # an orderly end, as far as the next one can tell
    assert (quiet.service.stats().adapter.restarts, await quiet.events()) == (1, [])
    await quiet.service.close()


async def test_a_reader_that_lost_events_with_the_process_is_told_of_the_restart_too() -> None:
    queue = Queue(bug("bad", submit=True))
    await queue.now.submit("a", "b", "c")
    await queue.send(group("bad"))
    await queue.now.service.get_jobs([])
    call = EventsCall("late", after=1, names=["job:completed"], also=["queue:restarted"], wait_s=0.0)
    reply = await queue.now.service.events(call)
    assert (reply.gap, [event.name for event in reply.events]) == (True, ["queue:restarted"])
    call.after = reply.after
    assert (await queue.now.service.events(call)).events == []
    call.after, call.also = 1, []
    assert (await queue.now.service.events(call)).events == []
    await queue.now.service.close()


async def test_a_process_that_was_killed_is_told_of_too() -> None:
    killed = ServiceHarness()
    journal = killed.memory.crash()
    await killed.service.close()
    after = ServiceHarness(journal=journal, restarted=True)
    await after.service.get_jobs([])  # what is told is on disk
    (event,) = await after.events()
    assert (event.name, b"was killed, or it hung" in event.data) == ("queue:restarted", True)
    assert after.service.stats().adapter.restarts == 1
    await after.service.close()


async def test_the_process_is_ended_once_its_fault_is_on_disk() -> None:
    noted: list[bytes] = []
    queue = ServiceHarness()
    queue.service._faults._end = lambda: noted.append(queue.journal.read_note())
    break_on(queue.service._engine, "bad", submit=True)
    with pytest.raises(QueueUnavailable):
        await queue.submit("bad")
    assert len(noted) == 1
    assert b"ZeroDivisionError" in noted[0]
    await queue.service.close()


@pytest.mark.parametrize("text", [b"ZeroDivisionError", b"\xfferoDivisionError"], ids=["whole", "no UTF-8"])
async def test_a_queue_starts_whatever_its_note_holds(text: bytes) -> None:
    queue = ServiceHarness()
    queue.service._faults._end = lambda: None
    break_on(queue.service._engine, "bad", submit=True)
    with pytest.raises(QueueUnavailable):
        await queue.submit("bad")
    journal = queue.memory.crash()
    journal.write_note(journal.read_note().replace(b"ZeroDivisionError", text))
    await queue.service.close()
    after = ServiceHarness(journal=journal, restarted=True)
    await after.submit("good")
    assert await after.claim() == ["good"]
    await after.service.close()
