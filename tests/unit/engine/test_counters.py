"""Totals, and the two sequences."""

from __future__ import annotations

from aiqueue.engine.counters import Counters, decode_counters, encode_counters
from aiqueue.engine.states import JobState
from aiqueue.levels import AIJobPriority
from aiqueue.testing.jobs import completed
from tests.tools.queue_harness import QueueHarness


def test_sequences_begin_at_one_and_have_no_gaps() -> None:
    counters = Counters()
    assert [counters.take_seq() for _ in range(3)] == [1, 2, 3]
    assert [counters.take_event() for _ in range(3)] == [1, 2, 3]


def test_ends_are_counted_by_state() -> None:
    counters = Counters()
    for state in (JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED):
        counters.count_end(state)
    assert counters.ended == {"completed": 2, "failed": 1}


def test_counters_survive_their_encoding() -> None:
    counters = Counters(next_seq=7, ended={"completed": 3}, completed=[1, 2, 0, 0], stale_outcomes=4)
    assert decode_counters(encode_counters(counters)) == counters


def test_a_job_in_time_and_one_too_late_are_told_apart_by_level(queue: QueueHarness) -> None:
    queue.submit("in-time", "late", level=AIJobPriority.URGENT)
    queue.claim(2)
    queue.clock.advance(3.0)
    queue.exchange(completed("in-time"), slots=0)
    queue.clock.advance(0.001)
    queue.exchange(completed("late"), slots=0)
    assert queue.engine.core.counters.completed == [2, 0, 0, 0]
    assert queue.engine.core.counters.sla_met == [1, 0, 0, 0]


def test_event_numbers_grow_without_a_gap_over_a_restart(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim()
    queue.restart()
    queue.exchange(completed("a"), slots=0)
    queue.cancel("b")
    assert [event.number for event in queue.events] == [1, 2, 3, 4, 5]


def test_a_command_that_changes_nothing_writes_nothing(queue: QueueHarness) -> None:
    for effects in (queue.exchange(), queue.exchange(slots=0)):
        assert not effects
    queue.tick(1.0)
    queue.cancel("nobody")
    assert queue.journal.commits == 0  # type: ignore[attr-defined]
