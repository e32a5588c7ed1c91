"""After a fault the parts of a worker's call are carried out one by one. Where none fails, that changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from aiqueue.engine import Exchange
from aiqueue.protocol import Outcome
from aiqueue.testing.jobs import POOL, cancelled, completed, failed, final
from tests.tools.service_harness import ServiceHarness

JOBS = [f"job-{number}" for number in range(6)]
WORKERS = ("worker-1", "worker-2")


def ended(job_id: str, attempt: int, how: str) -> Outcome:
    """Return what a worker reports of a job."""
    if how == "failed":
        return failed(job_id, attempt, final())
    return completed(job_id, attempt) if how == "completed" else cancelled(job_id, attempt)


attempts = st.integers(1, 2)
outcomes = st.builds(ended, st.sampled_from(JOBS), attempts, st.sampled_from(["completed", "failed", "handed back"]))
calls = st.builds(
    Exchange,
    st.sampled_from(WORKERS),
    st.just(POOL),
    st.integers(0, 4),
    st.lists(outcomes, max_size=3, unique_by=lambda outcome: outcome.job_id),
    st.none() | st.lists(st.tuples(st.sampled_from(JOBS), attempts), max_size=3),
    urgent_slots=st.integers(0, 1),
    most=st.integers(0, 2),
    number=st.integers(0, 5),
)


def make_careful(queue: ServiceHarness, suspects: int) -> None:
    """Let the queue go on as after a fault. ``suspects``: bits of the hashes of outcomes that may have caused it."""
    faults = queue.service._faults
    faults.is_empty = lambda: False  # type: ignore[method-assign]
    faults.is_suspect = lambda call: bool(int(call, 16) & suspects)  # type: ignore[method-assign]


def state_of(queue: ServiceHarness) -> dict[str, Any]:
    """Return all that later calls depend on."""
    engine = queue.service._engine
    workers = {
        worker.id: (worker.slots, worker.urgent_slots, worker.most, worker.calls, worker.silent_after)
        for worker in engine.core.leases
    }
    return {"workers": workers, **engine.fingerprint()}


async def compare(sent: Sequence[Exchange], suspects: int) -> None:
    """Let two queues take the same calls, one of them carefully."""
    plain, careful = ServiceHarness(), ServiceHarness()
    make_careful(careful, suspects)
    for queue in (plain, careful):
        await queue.submit(*JOBS)
    for call in sent:
        told, in_parts = (queue.service._apply(call)[0] for queue in (plain, careful))
        assert [(job.id, job.attempt) for job in in_parts.claims] == [(job.id, job.attempt) for job in told.claims]
        extra = set(in_parts.cancels) - set(told.cancels)
        assert set(told.cancels) <= set(in_parts.cancels)
        assert extra.isdisjoint(call.running or ()), "what it may run is stopped"
        assert state_of(careful) == state_of(plain)
        for queue in (plain, careful):
            queue.clock.advance(1.0)
    for queue in (plain, careful):
        await queue.service.close()


@settings(max_examples=150)
@given(sent=st.lists(calls, max_size=12), suspects=st.sampled_from([0, 1, 3, 15]))
def test_calls_that_are_taken_in_parts_leave_the_queue_as_whole_ones_do(sent: list[Exchange], suspects: int) -> None:
    asyncio.run(compare(sent, suspects))
