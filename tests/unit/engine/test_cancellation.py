"""Stopping jobs."""

from __future__ import annotations

import pytest

from aiqueue.engine.states import JobState
from aiqueue.protocol import CancelReply
from aiqueue.testing.jobs import cancelled, completed, failed, final
from tests.tools.queue_harness import WORKER, QueueHarness


def test_a_queued_job_is_gone_at_once(queue: QueueHarness) -> None:
    queue.submit("a")
    assert queue.cancel("a") == CancelReply("a", cancelled=True, status="cancelled")
    assert queue.claim() == []
    assert queue.state_of("a") == "cancelled"
    assert queue.names("a") == ["submitted", "cancelled"]


def test_a_job_that_waits_for_a_retry_is_gone_at_once(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.exchange(failed("a"), slots=0)
    assert queue.cancel("a").status == "cancelled"
    queue.tick(60.0)
    assert queue.claim() == []
    assert queue.engine.next_due(now=0.0) is None


def test_a_running_job_is_stopped_through_its_worker(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    assert queue.cancel("a") == CancelReply("a", cancelled=True, status="cancelling")
    assert queue.engine.has_news_for(WORKER)
    assert queue.exchange(slots=0).cancels == [("a", 1)]
    assert not queue.engine.has_news_for(WORKER)
    queue.exchange(cancelled("a"), slots=0)
    assert queue.state_of("a") == "cancelled"
    assert queue.names("a") == ["submitted", "processing", "cancelled"]


def test_a_second_cancel_changes_nothing_and_tells_the_worker_once(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.cancel("a")
    assert queue.cancel("a") == CancelReply("a", cancelled=True, status="cancelling")
    assert queue.exchange(slots=0).cancels == [("a", 1)]


def test_a_job_that_ended_before_its_worker_read_the_cancel_keeps_its_result(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.cancel("a")
    queue.exchange(completed("a"), slots=0)
    assert queue.state_of("a") == "completed"


@pytest.mark.parametrize("failure", [None, final()])
def test_a_job_that_fails_while_it_is_cancelled_is_cancelled(queue: QueueHarness, failure: object) -> None:
    queue.submit("a")
    queue.claim()
    queue.cancel("a")
    queue.exchange(failed("a", failure=failure), slots=0)  # type: ignore[arg-type]
    assert queue.state_of("a") == "cancelled"
    assert queue.events[-1].failure is not None
    assert queue.events[-1].failure.kind == "cancelled"


def test_what_was_produced_before_the_cancel_is_kept(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.cancel("a")
    outcome = cancelled("a")
    outcome.result = b'{"partial":true}'
    queue.exchange(outcome, slots=0)
    assert queue.journal.jobs(["a"])["a"].result == b'{"partial":true}'
    assert queue.state_of("a") == "cancelled"


def test_a_job_that_has_ended_or_never_was_is_left_to_the_journal(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.exchange(completed("a"), slots=0)
    assert queue.cancel("a") == CancelReply("a", cancelled=False, status="")
    assert queue.cancel("nobody") == CancelReply("nobody", cancelled=False, status="")


def test_a_cancelling_job_still_takes_its_slot(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.exchange(slots=1)
    queue.cancel("a")
    assert queue.exchange(slots=1).claims == []
    assert queue.job("a").state is JobState.CANCELLING


def test_a_restart_tells_the_worker_again(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    queue.cancel("a")
    queue.exchange(slots=0)
    queue.restart()
    assert queue.exchange(slots=0).cancels == [("a", 1)]
