"""Slots that a worker keeps for urgent jobs."""

from __future__ import annotations

from dataclasses import replace

from aiqueue.engine import Claim, Exchange
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import Outcome
from aiqueue.testing.jobs import POOL
from tests.tools.queue_harness import WORKER, QueueHarness, ids

LOW, URGENT = AIJobPriority.LOW, AIJobPriority.URGENT


def poll(queue: QueueHarness, *outcomes: Outcome, slots: int = 4, urgent_slots: int = 1) -> list[str]:
    granted = queue.do(Exchange(WORKER, POOL, slots, outcomes, urgent_slots=urgent_slots)).reply
    return ids(granted.claims)


def test_other_jobs_leave_the_reserved_slots_free(queue: QueueHarness) -> None:
    queue.submit(*"abcdef", level=LOW)
    assert poll(queue, slots=4, urgent_slots=2) == ["a", "b"]
    assert poll(queue, slots=4, urgent_slots=2) == []


def test_an_urgent_job_finds_a_slot_however_many_others_run_and_wait(queue: QueueHarness) -> None:
    queue.submit(*"abcdef", level=LOW)
    assert poll(queue) == ["a", "b", "c"]
    queue.submit("u", "v", level=URGENT)
    assert poll(queue) == ["u"]
    assert poll(queue, Outcome("a", 1, b"{}")) == ["v"]  # v is first in line
    assert poll(queue, Outcome("u", 1, b"{}")) == ["d"]


def test_a_worker_that_waits_is_given_an_urgent_job_for_its_reserved_slot(queue: QueueHarness) -> None:
    queue.submit(*"abcd", level=LOW)
    poll(queue)
    assert ids(queue.do(Claim(WORKER, 3)).reply.claims) == []
    queue.submit("u", level=URGENT)
    assert ids(queue.do(Claim(WORKER, 3)).reply.claims) == ["u"]


def test_an_old_job_does_not_hide_an_urgent_one(queue: QueueHarness) -> None:
    """Ageing makes it count as urgent, but the slot is for those that are."""
    aged = QueueHarness(policy=replace(queue.policy, ageing=2.0))
    aged.submit(*"abcd", level=LOW)
    poll(aged)
    aged.clock.advance(3_600.0)
    aged.submit("u", level=URGENT)
    assert poll(aged) == ["u"]


def test_without_reserved_slots_any_job_takes_any_slot(queue: QueueHarness) -> None:
    queue.submit(*"abcdef", level=LOW)
    assert poll(queue, urgent_slots=0) == ["a", "b", "c", "d"]
