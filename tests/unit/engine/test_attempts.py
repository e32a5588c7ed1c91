"""The history of a job's attempts: each one but the last has a record, the last one is in the job's own row."""

from __future__ import annotations

from aiqueue.engine.records import AttemptRecord, decode_progress
from aiqueue.protocol import Failure
from aiqueue.testing.jobs import cancelled, completed, failed, retryable
from tests.tools.queue_harness import WORKER, QueueHarness


def test_every_way_an_attempt_can_end_is_written_down_in_order(queue: QueueHarness) -> None:
    queue.submit("a")
    start = queue.clock.now()
    overloaded = retryable("Provider sim: 503")
    too_many = Failure("rate_limited", "Provider sim: 429", True, 429, 1.0, "req-7")
    queue.claim()
    queue.clock.advance(2.0)
    queue.exchange(failed("a", 1, overloaded), slots=0)
    queue.tick(5.0)
    queue.claim()
    queue.exchange(failed("a", 2, too_many), slots=0)
    queue.tick(5.0)
    queue.claim()
    queue.exchange(cancelled("a", 3), slots=0)
    queue.claim(worker="worker-2")
    queue.lose("worker-2")
    queue.claim()
    queue.exchange(completed("a", 5), slots=0)
    history = queue.attempts("a")
    assert [(record.attempt, record.outcome) for record in history] == [
        (1, "failed"),
        (2, "refused"),
        (3, "handed_back"),
        (4, "lost"),
    ]
    assert history[0] == AttemptRecord(1, "failed", start, start + 2.0, WORKER, overloaded)
    assert history[1].failure == too_many
    assert history[3].worker_id == "worker-2"
    assert history[3].failure is not None
    assert history[3].failure.kind == "worker_lost"
    last = decode_progress(queue.journal.jobs(["a"])["a"].progress)
    assert (last.attempt, last.worker_id, last.failure) == (5, WORKER, None)


def test_a_dead_letter_has_all_its_attempts(queue: QueueHarness) -> None:
    queue.submit("a", max_retries=2)
    for attempt in (1, 2, 3):
        queue.claim()
        queue.exchange(failed("a", attempt, retryable(f"failure {attempt}")), slots=0)
        queue.tick(60.0)
    messages = [record.failure.message for record in queue.attempts("a") if record.failure]
    last = decode_progress(queue.journal.jobs(["a"])["a"].progress)
    assert last.failure is not None
    assert [*messages, last.failure.message] == ["failure 1", "failure 2", "failure 3"]


def test_a_job_that_succeeds_at_once_has_no_records(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.exchange(completed("a"), slots=0)
    assert queue.attempts("a") == []


def test_the_history_survives_a_restart(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.exchange(failed("a"), slots=0)
    before = queue.attempts("a")
    queue.restart()
    assert queue.attempts("a") == before != []
