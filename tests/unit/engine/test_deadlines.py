"""Jobs that may not start yet, and jobs that must start by a time."""

from __future__ import annotations

import pytest

from aiqueue.engine.states import JobState
from aiqueue.testing.jobs import cancelled, completed, failed, group, header, submission
from tests.tools.queue_harness import QueueHarness

# --- not before ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["delay", "time", "both"])
def test_a_job_waits_for_its_time_and_not_longer(queue: QueueHarness, said: str) -> None:
    at = queue.clock.now() + 30.0
    fields = {"delay": {"delay_ms": 30_000}, "time": {"run_at": at}, "both": {"run_at": at, "delay_ms": 10_000}}[said]
    queue.submit("later", **fields)
    queue.submit("now")
    assert queue.state_of("later") == "scheduled"
    assert queue.engine.next_due(now=queue.clock.now()) == at
    assert queue.claim(2) == ["now"]
    queue.tick(29.9)
    assert queue.claim(2) == []
    queue.tick(0.1)
    assert queue.claim(2) == ["later"]
    assert queue.names("later") == ["submitted", "processing"]


def test_a_time_that_has_passed_is_no_wait(queue: QueueHarness) -> None:
    queue.submit("a", run_at=queue.clock.now() - 5.0)
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    assert queue.claim() == ["a"]


def test_a_scheduled_job_waits_on_after_a_restart(queue: QueueHarness) -> None:
    queue.submit("a", delay_ms=30_000)
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    queue.tick(29.0)
    assert queue.claim() == []
    queue.tick(1.0)
    assert queue.claim() == ["a"]


def test_a_scheduled_job_is_cancelled_at_once(queue: QueueHarness) -> None:
    queue.submit("a", delay_ms=30_000)
    assert queue.cancel("a").status == "cancelled"
    queue.tick(60.0)
    assert queue.claim() == []
    assert queue.engine.core.waiting == [0, 0, 0, 0]


# --- not after -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["duration", "time", "both"])
def test_a_job_not_started_in_time_expires_and_nothing_runs(queue: QueueHarness, said: str) -> None:
    at = queue.clock.now() + 5.0
    fields = {
        "duration": {"expires_in_ms": 5_000},
        "time": {"expires_at": at},
        "both": {"expires_at": at, "expires_in_ms": 9_000},
    }[said]
    queue.submit("a", **fields)
    assert queue.engine.next_due(now=queue.clock.now()) == at
    queue.tick(4.9)
    assert queue.is_live("a")
    queue.tick(0.1)
    assert queue.state_of("a") == "expired"
    assert queue.names("a") == ["submitted", "expired"]
    assert queue.ended == {"expired": 1}
    assert queue.claim() == []


def test_a_worker_that_asks_before_the_tick_is_not_given_a_job_that_is_too_late(queue: QueueHarness) -> None:
    queue.submit("late", expires_in_ms=5_000)
    queue.submit("fine")
    queue.clock.advance(5.0)
    assert queue.claim(2) == ["fine"]
    assert queue.state_of("late") == "expired"


def test_a_job_started_in_time_does_not_expire_whatever_comes_then(queue: QueueHarness) -> None:
    queue.submit("done", "retried", "handed-back", "lost", expires_in_ms=5_000)
    queue.claim(3)
    queue.claim(1, worker="worker-2")
    queue.exchange(failed("retried"), cancelled("handed-back"), slots=0)
    queue.lose("worker-2", crashed=False)
    queue.tick(60.0)
    queue.restart()
    queue.tick(1.0)
    assert queue.ended == {}
    queue.exchange(completed("done"), slots=0)
    assert queue.claim(3, worker="worker-3") == ["retried", "handed-back", "lost"]


def test_a_delayed_job_expires_too(queue: QueueHarness) -> None:
    queue.submit("a", delay_ms=30_000, expires_in_ms=5_000)
    queue.tick(5.0)
    assert queue.state_of("a") == "expired"
    queue.tick(60.0)
    assert len(queue.engine.core.due) == 0


def test_a_deadline_survives_a_restart_and_passes_during_it(queue: QueueHarness) -> None:
    queue.submit("a", "b", expires_in_ms=5_000)
    queue.claim()
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    queue.clock.advance(60.0)
    queue.restart()
    queue.tick()
    assert [queue.state_of(name) for name in "ab"] == ["processing", "expired"]


def test_a_job_that_has_ended_has_no_deadline(queue: QueueHarness) -> None:
    queue.submit("a", "b", expires_in_ms=5_000)
    queue.claim()
    queue.cancel("b")
    assert queue.engine.core.deadlines.times() == {}
    assert queue.engine.next_due(now=queue.clock.now()) is None


def test_deadlines_pass_in_their_order(queue: QueueHarness) -> None:
    for name, after_ms in (("c", 3_000), ("a", 1_000), ("b", 2_000)):
        queue.submit(name, expires_in_ms=after_ms)
    queue.tick(2.0)
    assert [event.job_id for event in queue.events if event.name == "job:expired"] == ["a", "b"]
    assert queue.job("c").state is JobState.QUEUED


def test_the_times_in_the_journal_are_those_the_queue_goes_by(queue: QueueHarness) -> None:
    job = submission("a", header())
    job.header.delay_ms, job.header.expires_in_ms = 1_000, 9_000
    queue.submit_groups(group(job))
    assert queue.job("a").run_at == queue.clock.now() + 1.0
    assert queue.engine.core.deadlines.times() == {"a": queue.clock.now() + 9.0}
