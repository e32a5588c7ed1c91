"""Restarts."""

from __future__ import annotations

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.engine.engine import QueueEngine
from aiqueue.engine.states import JobState
from aiqueue.levels import LEVELS
from aiqueue.testing.jobs import completed, failed
from tests.tools.queue_harness import POLICY, QueueHarness


def busy(queue: QueueHarness) -> QueueHarness:
    """Bring jobs into every state there is."""
    for level in LEVELS:
        queue.submit(*(f"{level}-{number}" for number in range(8)), level=level, batch_id=f"batch-{level}")
    queue.claim(12)
    queue.exchange(completed("urgent-0"), failed("urgent-1"), failed("urgent-2"), slots=0)
    queue.cancel("urgent-3")
    queue.cancel("urgent-1")
    queue.cancel("low-3")
    queue.claim(2, worker="worker-2")
    return queue


def test_a_restart_gives_the_same_queue(queue: QueueHarness) -> None:
    busy(queue)
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    states = {job.state for job in queue.engine.core.live.values()}
    assert states == {JobState.QUEUED, JobState.SCHEDULED, JobState.PROCESSING, JobState.CANCELLING}


def test_two_restarts_give_the_same_queue(queue: QueueHarness) -> None:
    busy(queue).restart()
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before


def test_a_worker_that_lived_through_the_restart_reports_under_the_same_attempt(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.restart()
    queue.exchange(completed("a"), running=[], slots=1)
    assert queue.state_of("a") == "completed"
    assert queue.engine.core.counters.stale_outcomes == 0


def test_a_worker_that_lived_through_the_restart_is_not_given_what_it_runs(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.restart()
    assert not queue.exchange(running=[("a", 1)], slots=1)
    assert queue.job("a").attempt == 1


def test_leases_begin_anew_at_a_restart_and_end_if_the_worker_died_with_it(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.clock.advance(3_600)
    queue.restart()
    queue.tick(89.0)
    assert queue.job("a").state is JobState.PROCESSING
    queue.tick(1.0)
    assert (queue.job("a").state, queue.job("a").crashes) == (JobState.QUEUED, 1)


def test_what_was_not_committed_is_as_if_it_had_not_been(queue: QueueHarness) -> None:
    queue.submit("a")
    before = queue.engine.fingerprint()
    queue.journal.fail_next()  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space"):
        queue.submit("b")
    queue.restart()
    assert queue.engine.fingerprint() == before


def test_an_engine_without_rows_is_empty() -> None:
    engine = QueueEngine.load(POLICY, counters=b"", rows=[], now=1.0)
    assert engine.fingerprint() == QueueEngine(POLICY).fingerprint()
    assert engine.next_due(now=0.0) is None


def test_strings_that_jobs_share_are_stored_once(queue: QueueHarness) -> None:
    queue.submit("a", owner="".join(["cli", "ent"]))
    queue.submit("b", owner="".join(["cli", "ent"]))
    assert queue.job("a").owner is queue.job("b").owner
    assert queue.job("a").lane is queue.job("b").lane


def test_rows_that_are_joined_keep_the_later_counters() -> None:
    rows = Rows(states=[(1, "processing", b"", 0.0)], counters=b"one")
    rows.extend(Rows(states=[(1, "completed", b"", 9.0)], results=[(1, b"r")]))
    assert rows.counters == b"one"
    rows.extend(Rows(counters=b"two"))
    assert (rows.counters, rows.states) == (b"two", [(1, "processing", b"", 0.0), (1, "completed", b"", 9.0)])
    assert not Rows()
    assert Rows(counters=b"x")
