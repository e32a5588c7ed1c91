"""Workers that fall silent or die."""

from __future__ import annotations

import pytest

from aiqueue.engine import Cancel, LoseWorker, Tick
from aiqueue.engine.states import JobState
from aiqueue.testing.jobs import completed
from tests.tools.queue_harness import WORKER, QueueHarness


def test_a_worker_that_speaks_keeps_its_leases_however_long_its_jobs_take(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    for _ in range(20):
        queue.tick(89.0)
        queue.exchange(slots=0)
    assert queue.job("a").state is JobState.PROCESSING


def test_a_silent_worker_loses_all_its_leases(queue: QueueHarness) -> None:
    queue.submit("a", "b", "c")
    queue.claim(2)
    queue.tick(89.9)
    assert queue.job("a").state is JobState.PROCESSING
    queue.tick(0.1)
    assert [queue.job(job_id).state for job_id in "abc"] == [JobState.QUEUED] * 3
    assert [queue.job(job_id).crashes for job_id in "abc"] == [1, 1, 0]
    assert queue.events[-1].failure is not None
    assert "no heartbeat for 90 s" in queue.events[-1].failure.message
    assert not list(queue.engine.core.leases)


def test_a_worker_that_comes_back_after_its_leases_were_taken_finds_them_gone(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.tick(90.0)
    granted = queue.exchange(completed("a"), slots=0, running=[("a", 1)])
    assert granted.cancels == [("a", 1)]
    assert queue.engine.core.counters.stale_outcomes == 1
    assert queue.job("a").state is JobState.QUEUED


def test_only_the_silent_worker_loses_its_leases(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim(1)
    queue.tick(60.0)
    queue.claim(1, worker="worker-2")
    queue.tick(60.0)
    assert (queue.job("a").state, queue.job("b").state) == (JobState.QUEUED, JobState.PROCESSING)


def test_a_dead_worker_loses_its_leases_at_once(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim(2)
    assert queue.lose(crashed=False) == 2
    assert queue.claim(2, worker="worker-2") == ["a", "b"]


def test_the_death_of_an_unknown_worker_changes_nothing(queue: QueueHarness) -> None:
    queue.submit("a")
    before = queue.engine.fingerprint()
    assert queue.lose("nobody") == 0
    assert queue.engine.fingerprint() == before


def test_a_lost_worker_is_reported_once(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    assert (queue.lose(), queue.lose()) == (1, 0)
    assert queue.job("a").crashes == 1


def test_a_job_that_keeps_killing_its_workers_is_given_up(queue: QueueHarness) -> None:
    queue.submit("poison", "healthy")
    for number in (1, 2, 3):
        worker = f"worker-{number}"
        assert queue.claim(1, worker=worker) == ["poison"]
        queue.lose(worker)
    assert queue.state_of("poison") == "dead_letter"
    failure = queue.events[-1].failure
    assert failure is not None
    assert (failure.kind, failure.retryable) == ("poison_job", False)
    assert "3 workers died while they ran this job and no other" in failure.message
    assert queue.claim(2) == ["healthy"]


def test_crashes_are_not_counted_as_failed_attempts(queue: QueueHarness) -> None:
    queue.submit("a", max_retries=0)
    for number in (1, 2):
        queue.claim(worker=f"worker-{number}")
        queue.lose(f"worker-{number}")
    queue.claim(worker="worker-3")
    queue.exchange(completed("a", attempt=3), worker="worker-3", slots=0)
    assert queue.state_of("a") == "completed"


def test_a_job_that_was_being_cancelled_is_cancelled_by_its_workers_death(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.cancel("a")
    queue.lose()
    assert queue.state_of("a") == "cancelled"


@pytest.mark.parametrize("slots", [-5, 0])
def test_a_worker_without_room_has_none(queue: QueueHarness, slots: int) -> None:
    queue.exchange(slots=slots)
    assert queue.engine.free_slots(WORKER) == 0


def test_a_worker_that_comes_back_is_told_to_stop_what_was_taken_from_it(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim(2)
    queue.tick(90.0)
    assert queue.exchange(slots=0).cancels == [("a", 1), ("b", 1)]  # an ordinary heartbeat: it knows of nothing
    assert queue.exchange(slots=0).cancels == []


def test_workers_that_never_come_back_are_not_remembered_for_ever(queue: QueueHarness) -> None:
    for number in range(1_100):
        queue.submit(f"job-{number}")
        queue.claim(worker=f"worker-{number}")
        queue.do(LoseWorker(f"worker-{number}", "died"))
        queue.do(Cancel([f"job-{number}"]))
    assert queue.claim(worker="worker-0") == []
    last = queue.exchange(slots=0, worker="worker-1099")
    assert last.cancels == [("job-1099", 1)]
    assert queue.exchange(slots=0, worker="worker-50").cancels == []


def test_a_worker_heard_since_a_pause_gets_no_longer_lease_for_it(queue: QueueHarness) -> None:
    queue.submit("heard", "unheard")
    queue.claim(worker="w1")
    queue.claim(worker="w2")
    queue.clock.advance(28_800.0)  # the machine slept
    queue.exchange(worker="w1", slots=1)
    queue.do(Tick(pause_s=28_800.0))
    assert [queue.job(name).state for name in ("heard", "unheard")] == [JobState.PROCESSING] * 2
    queue.tick(90.0)
    assert [queue.job(name).state for name in ("heard", "unheard")] == [JobState.QUEUED] * 2
