"""Jobs that wait for a time."""

from __future__ import annotations

from aiqueue.engine.states import JobState
from aiqueue.protocol import Failure
from aiqueue.testing.jobs import failed
from tests.tools.queue_harness import QueueHarness


def fail_with_wait(queue: QueueHarness, *waits: tuple[str, float]) -> None:
    names = [name for name, _ in waits]
    queue.submit(*names)
    queue.claim(len(names))
    busy = [Failure("provider_server_error", "Provider sim: 409", True, 409, wait) for _, wait in waits]
    queue.exchange(*(failed(name, failure=failure) for name, failure in zip(names, busy, strict=True)), slots=0)


def test_a_job_comes_back_when_its_time_has_come_and_not_before(queue: QueueHarness) -> None:
    fail_with_wait(queue, ("a", 10.0))
    queue.tick(9.999)
    assert queue.job("a").state is JobState.SCHEDULED
    queue.tick(0.001)
    assert queue.job("a").state is JobState.QUEUED
    assert queue.state_of("a") == "queued"
    assert queue.job("a").run_at == 0.0


def test_the_next_time_is_the_earliest_one(queue: QueueHarness) -> None:
    fail_with_wait(queue, ("a", 30.0), ("b", 10.0), ("c", 20.0))
    start = queue.clock.now()
    assert queue.engine.next_due(now=0.0) == start + 10.0
    queue.cancel("b")
    assert queue.engine.next_due(now=0.0) == start + 20.0
    queue.tick(25.0)
    assert queue.engine.next_due(now=0.0) == start + 30.0
    queue.tick(10.0)
    assert queue.engine.next_due(now=0.0) is None


def test_all_that_came_due_meanwhile_comes_back_in_one_tick(queue: QueueHarness) -> None:
    fail_with_wait(queue, ("a", 30.0), ("b", 10.0), ("c", 20.0))
    assert len([*queue.engine.core.due.jobs()]) == 3
    queue.tick(3_600.0)
    assert not [*queue.engine.core.due.jobs()]
    assert queue.claim(3) == ["a", "b", "c"]


def test_a_tick_with_nothing_due_writes_nothing(queue: QueueHarness) -> None:
    fail_with_wait(queue, ("a", 30.0))
    before = queue.engine.fingerprint()
    queue.tick(1.0)
    assert queue.engine.fingerprint() == before


def test_times_survive_a_restart(queue: QueueHarness) -> None:
    fail_with_wait(queue, ("a", 30.0))
    due = queue.engine.next_due(now=0.0)
    queue.restart()
    assert queue.engine.next_due(now=0.0) == due
    queue.tick(31.0)
    assert queue.claim() == ["a"]
