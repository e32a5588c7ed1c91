"""Long lists without a batch: made ready beforehand and let run some at a time, they are accepted as any other list."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace as changed
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.engine import Cancel, Submit
from aiqueue.errors import RateLimited
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import Outcome, Refusal, SubmitGroup
from aiqueue.testing.jobs import header, submission
from tests.tools.queue_harness import POLICY, QueueHarness

SLOW = changed(POLICY, most_at_once=2)
AT_ONCE = 4  # jobs of a list that become ready in one turn of such a queue


def submitted(queue: QueueHarness, group: SubmitGroup, *, ready: bool = True) -> Refusal | None:
    """Submit a list, made ready beforehand or in the usual way."""
    made = queue.engine.prepare(group)
    if ready:
        for _ in made.in_parts(3, now=queue.clock.now()):
            pass
    (refusal,) = queue.do(Submit([group], prepared={id(group): made} if ready else {})).reply
    assert refusal is None or isinstance(refusal, Refusal)
    return refusal


def listed(count: int, *, key: str = "scope:key", **fields: Any) -> SubmitGroup:
    made = replace(header(), **fields)
    jobs = [submission(f"j{n}", made) for n in range(count)]
    jobs[0].header = replace(made, idempotency_key=key)
    return SubmitGroup(jobs)


@st.composite
def lists(draw: st.DrawFn) -> SubmitGroup:
    """Return a list whose jobs share one of a few headers."""
    headers = [
        replace(
            header(draw(st.sampled_from(AIJobPriority)), batch_id=draw(st.sampled_from(["", "label", "taken"]))),
            delay_ms=draw(st.sampled_from([0, 0, 500])),
            run_at=draw(st.sampled_from([0.0, 0.0, 1e10])),
            expires_in_ms=draw(st.sampled_from([0, 0, 700])),
            fail_fast=draw(st.booleans()),
            idempotency_key=draw(st.sampled_from(["", "scope:key"])),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    count = draw(st.integers(1, 12))
    ids = [f"j{n}" if draw(st.integers(0, 60)) else "known" for n in range(count)]
    jobs = [submission(job_id, draw(st.sampled_from(headers))) for job_id in ids]
    return SubmitGroup(jobs, metadata=draw(st.sampled_from([b"", b"{}"])))


def with_others() -> QueueHarness:
    """Return a queue where a job waits, and whose provider may have said that nothing goes."""
    queue = QueueHarness(SLOW)
    queue.submit("known")
    return queue


def close_gate(queue: QueueHarness) -> None:
    assert queue.claim() == ["known"]
    refused = RateLimited("429", status=429, retry_after_s=60.0).to_failure()
    queue.exchange(Outcome("known", 1, failure=refused), slots=0)


def goes_on(queue: QueueHarness) -> dict[str, Any]:
    """Carry out all that is pending; return what a restart must bring back, but for the events' numbers."""
    queue.go_on()
    found = queue.engine.fingerprint()
    found["counters"]["next_event"] = 0
    return found


@given(group=lists(), is_closed=st.booleans())
def test_a_list_made_ready_beforehand_is_accepted_as_any_other(group: SubmitGroup, is_closed: bool) -> None:
    usual, ready = with_others(), with_others()
    for queue in (usual, ready):
        if is_closed:
            close_gate(queue)
    assert submitted(ready, deepcopy(group)) == submitted(usual, deepcopy(group), ready=False)
    assert goes_on(ready) == goes_on(usual)
    for job in group.jobs:
        assert ready.names(job.id) == usual.names(job.id)
        assert ready.state_of(job.id) == usual.state_of(job.id)
    assert goes_on(QueueHarness(ready.policy, ready.journal)) == goes_on(ready)


def test_one_step_accepts_all_of_a_list_and_few_of_its_jobs_become_ready_in_it() -> None:
    queue = QueueHarness(SLOW)
    assert submitted(queue, listed(11)) is None
    assert len(queue.engine.core.live) == 11
    assert [len(queue.names(f"j{n}")) for n in range(11)] == [1] * AT_ONCE + [0] * 7
    assert queue.go_on() == 2
    assert queue.claim(20) == [f"j{n}" for n in range(11)]


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_a_job_that_ends_before_its_turn_is_announced_first(end: str) -> None:
    queue = QueueHarness(SLOW)
    submitted(queue, listed(11, expires_in_ms=1_000))
    if end == "cancelled":
        queue.do(Cancel(["j9"]))
        queue.go_on()
    queue.tick(2.0)
    queue.go_on()
    for _ in range(11 // SLOW.most_at_once + 1):
        queue.tick()
    assert queue.names("j9") == ["submitted", end]


def test_a_queue_that_dies_meanwhile_finds_all_of_the_list_free() -> None:
    queue = QueueHarness(SLOW)
    submitted(queue, listed(11))
    queue.restart()
    assert queue.claim(20) == [f"j{n}" for n in range(11)]
    assert submitted(queue, listed(2, key="other:key"), ready=True) is not None, "its jobs are known"
