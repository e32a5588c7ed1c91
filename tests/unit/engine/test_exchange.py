"""What workers report, and what they are given."""

from __future__ import annotations

import pytest

from aiqueue.engine.states import JobState
from aiqueue.protocol import Outcome
from aiqueue.testing.jobs import cancelled, completed, failed, final
from tests.tools.queue_harness import WORKER, QueueHarness, ids


@pytest.fixture
def running(queue: QueueHarness) -> QueueHarness:
    """Return a queue whose job ``a`` is processed by the worker, while ``b`` waits."""
    queue.submit("a", "b")
    queue.claim(1)
    return queue


def test_a_claim_is_journaled_with_its_attempt_before_the_worker_hears_of_it(running: QueueHarness) -> None:
    job = running.job("a")
    assert (job.state, job.attempt, job.worker_id) == (JobState.PROCESSING, 1, WORKER)
    assert job.started_at == running.clock.now()
    assert running.state_of("a") == "processing"


def test_a_completed_job_ends_with_its_result(running: QueueHarness) -> None:
    running.exchange(Outcome("a", 1, b'{"r":1}'), slots=0)
    assert not running.is_live("a")
    assert running.journal.jobs(["a"])["a"].result == b'{"r":1}'
    assert running.ended == {"completed": 1}
    assert running.events[-1].result == b'{"r":1}'


def test_one_answer_brings_as_many_jobs_as_the_worker_takes_from_one(queue: QueueHarness) -> None:
    queue.submit(*"abcde")
    assert ids(queue.exchange(slots=5, most=2).claims) == ["a", "b"]
    assert queue.claim_waiting(5) == ["c", "d"]
    assert ids(queue.exchange(slots=5, most=2).claims) == ["e"]


def test_a_slot_that_an_outcome_frees_is_filled_in_the_same_call(running: QueueHarness) -> None:
    granted = running.exchange(completed("a"), slots=1)
    assert ids(granted.claims) == ["b"]


def test_a_worker_gets_no_more_than_its_slots(queue: QueueHarness) -> None:
    queue.submit(*"abcde")
    assert len(queue.exchange(slots=2).claims) == 2
    assert queue.exchange(slots=2).claims == []
    assert len(queue.exchange(slots=3).claims) == 1


def test_a_worker_that_drains_gets_nothing_and_keeps_what_it_holds(running: QueueHarness) -> None:
    assert not running.exchange(slots=0)
    assert running.job("a").state is JobState.PROCESSING


def test_an_outcome_sent_twice_is_refused_and_counted(running: QueueHarness) -> None:
    running.exchange(completed("a", text="first"), slots=0)
    before = running.journal.jobs(["a"])["a"]
    running.exchange(completed("a", text="second"), slots=0)
    assert running.journal.jobs(["a"])["a"] == before
    assert running.engine.core.counters.stale_outcomes == 1
    assert running.ended == {"completed": 1}


def test_an_outcome_twice_in_one_call_counts_once(running: QueueHarness) -> None:
    running.exchange(completed("a"), completed("a"), slots=0)
    assert running.ended == {"completed": 1}
    assert running.engine.core.counters.stale_outcomes == 1


def test_an_outcome_of_an_earlier_attempt_is_refused(running: QueueHarness) -> None:
    running.lose()
    assert running.claim(1, worker="worker-2") == ["a"]
    running.exchange(completed("a", attempt=1), worker=WORKER, slots=0)
    assert (running.job("a").state, running.job("a").attempt) == (JobState.PROCESSING, 2)
    running.exchange(completed("a", attempt=1), worker="worker-2", slots=0)
    assert running.job("a").state is JobState.PROCESSING
    assert running.engine.core.counters.stale_outcomes == 2


def test_an_outcome_of_another_worker_is_refused_even_under_the_right_attempt(running: QueueHarness) -> None:
    running.exchange(completed("a"), worker="worker-2", slots=0)
    assert running.job("a").state is JobState.PROCESSING
    assert running.engine.core.counters.stale_outcomes == 1


def test_an_outcome_of_an_unknown_job_is_refused(queue: QueueHarness) -> None:
    queue.exchange(completed("nobody"), failed("nobody"), cancelled("nobody"))
    assert queue.engine.core.counters.stale_outcomes == 3
    assert queue.events == []


def test_a_count_of_stale_outcomes_survives_a_restart(running: QueueHarness) -> None:
    running.exchange(completed("nobody"), slots=0)
    running.restart()
    assert running.engine.core.counters.stale_outcomes == 1


def test_a_retryable_failure_waits_for_its_backoff(running: QueueHarness) -> None:
    running.exchange(failed("a"), slots=0)
    job = running.job("a")
    assert (job.state, job.retries, job.run_at) == (JobState.SCHEDULED, 1, running.clock.now() + 1.0)
    assert running.state_of("a") == "scheduled"
    assert running.names("a") == ["submitted", "processing", "retried"]


def test_a_final_failure_ends_the_job_at_its_first_attempt(running: QueueHarness) -> None:
    running.exchange(failed("a", failure=final("Provider sim: 400")), slots=0)
    assert running.state_of("a") == "failed"
    assert running.names("a")[-1] == "failed"
    assert running.events[-1].failure == final("Provider sim: 400")


def test_a_job_is_a_dead_letter_after_its_last_retry(queue: QueueHarness) -> None:
    queue.submit("a", max_retries=2)
    for attempt in (1, 2, 3):
        assert queue.claim() == ["a"]
        queue.exchange(failed("a", attempt), slots=0)
        queue.tick(60.0)
    assert queue.state_of("a") == "dead_letter"
    assert queue.ended == {"dead_letter": 1}
    assert queue.names("a").count("processing") == 3


def test_a_job_without_retries_is_a_dead_letter_at_once(queue: QueueHarness) -> None:
    queue.submit("a", max_retries=0)
    queue.claim()
    queue.exchange(failed("a"), slots=0)
    assert queue.state_of("a") == "dead_letter"


def test_a_job_handed_back_is_queued_at_once_and_nothing_is_held_against_it(running: QueueHarness) -> None:
    running.exchange(cancelled("a"), slots=0)
    job = running.job("a")
    assert (job.state, job.retries, job.crashes, job.attempt) == (JobState.QUEUED, 0, 0, 1)


def test_attempts_grow_however_an_attempt_ended(running: QueueHarness) -> None:
    running.exchange(cancelled("a", 1), slots=0)
    running.claim()
    running.lose()
    running.claim()
    running.exchange(failed("a", 3), slots=0)
    running.tick(5)
    running.claim()
    assert (running.job("a").attempt, running.job("a").retries, running.job("a").crashes) == (4, 1, 1)


# --- agreeing after a lost call --------------------------------------------------------------------------------------


def test_a_claim_that_never_arrived_is_given_again_under_the_same_attempt(running: QueueHarness) -> None:
    granted = running.exchange(running=[], slots=1)
    assert [(job.id, job.attempt) for job in granted.claims] == [("a", 1)]
    assert running.names("a") == ["submitted", "processing"]


def test_a_claim_that_did_arrive_is_not_given_again(running: QueueHarness) -> None:
    assert not running.exchange(running=[("a", 1)], slots=1)


def test_a_worker_is_told_to_stop_what_it_does_not_hold(running: QueueHarness) -> None:
    granted = running.exchange(running=[("a", 1), ("b", 7), ("x", 1)], slots=1)
    assert granted.cancels == [("b", 7), ("x", 1)]


def test_outcomes_count_before_the_difference_is_settled(running: QueueHarness) -> None:
    granted = running.exchange(completed("a"), running=[], slots=0)
    assert not granted
    assert running.state_of("a") == "completed"


def test_a_redelivered_claim_takes_a_slot(running: QueueHarness) -> None:
    granted = running.exchange(running=[], slots=2)
    assert ids(granted.claims) == ["a", "b"]


def test_a_cancel_that_never_arrived_is_told_again(running: QueueHarness) -> None:
    running.cancel("a")
    assert running.exchange(slots=0).cancels == [("a", 1)]
    assert running.exchange(slots=0).cancels == []
    assert running.exchange(running=[("a", 1)], slots=0).cancels == [("a", 1)]


# --- a worker that waits ---------------------------------------------------------------------------------------------


def test_a_waiting_worker_is_given_its_share_and_no_more_than_it_has_room_for(queue: QueueHarness) -> None:
    queue.exchange(slots=2)
    queue.submit(*"abcde")
    assert queue.claim_waiting(1) == ["a"]
    assert queue.claim_waiting(5) == ["b"]
    assert queue.claim_waiting(5) == []


def test_an_unknown_worker_that_waits_is_given_nothing(queue: QueueHarness) -> None:
    queue.submit("a")
    assert queue.claim_waiting(5, worker="nobody") == []


def test_an_unknown_worker_has_no_slots_and_no_news(queue: QueueHarness) -> None:
    assert queue.engine.free_slots("nobody") == 0
    assert not queue.engine.has_news_for("nobody")
