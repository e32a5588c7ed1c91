"""Large groups of linked jobs: made ready in parts, they are accepted as they would be in the usual way."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace as changed
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.engine import Cancel, QueueEngine, Submit, Tick
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import BatchSpec, Need, Refusal, Submission, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, header, submission
from tests.tools.queue_harness import POLICY, QueueHarness

OUTSIDE = {"live": None, "completed": "completed", "failed": "failed", "unknown": None}


@st.composite
def graphs(draw: st.DrawFn) -> SubmitGroup:
    """Return a graph that may need jobs of others, in any state, and jobs that come after it."""
    count = draw(st.integers(1, 7))
    ids = [f"g{n}" for n in range(count)]
    jobs = []
    for at in range(count):
        known = [*ids[:at], "live", "completed", "failed"]
        odd = draw(st.sampled_from([""] * 30 + ["unknown", ids[-1]]))
        needs = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) + [odd] * bool(odd)
        made = replace(
            header(draw(st.sampled_from(AIJobPriority)), batch_id="graph"),
            index=at,
            needs=tuple(map(Need, needs)),
            on_error=draw(st.sampled_from(["fail", "skip", "include"])) if needs else "",
            delay_ms=draw(st.sampled_from([0, 0, 500])),
            expires_in_ms=draw(st.sampled_from([0, 0, 700])),
            fail_fast=draw(st.booleans()),
            idempotency_key=draw(st.sampled_from(["", "", f"key-{at}"])),
        )
        jobs.append(submission(ids[at] if draw(st.integers(0, 40)) else ids[0], made))
    spec = BatchSpec("graph", "graph", max_concurrency=draw(st.sampled_from([0, 1, 2])))
    return SubmitGroup(jobs, batch=spec, metadata=draw(st.sampled_from([b"", b"{}"])))


def queue_with_others() -> QueueHarness:
    queue = QueueHarness(changed(POLICY, most_at_once=2))
    queue.submit("live")
    assert queue.claim() == ["live"]
    return queue


def submitted(queue: QueueHarness, group: SubmitGroup, *, ready: bool) -> list[Refusal | None]:
    """Submit a group, in the usual way or made ready beforehand."""
    ended = {job_id: state for job_id, state in OUTSIDE.items() if state}
    prepared = queue.engine.prepare(group)
    if ready:
        for _ in prepared.in_parts(2, now=queue.clock.now()):
            pass
    return list(queue.do(Submit([group], ended=ended, prepared={"graph": prepared} if ready else {})).reply)


def goes_on(queue: QueueHarness) -> dict[str, Any]:
    """Carry out all that is pending; return what a restart must bring back, but for the events' numbers."""
    queue.go_on()
    found = queue.engine.fingerprint()
    found["counters"]["next_event"] = 0
    return found


@given(group=graphs(), end=st.sampled_from([completed("live"), failed("live", failure=final())]))
def test_a_graph_made_ready_beforehand_is_accepted_as_any_other(group: SubmitGroup, end: Any) -> None:
    usual, ready = queue_with_others(), queue_with_others()
    assert submitted(ready, deepcopy(group), ready=True) == submitted(usual, deepcopy(group), ready=False)
    assert goes_on(ready) == goes_on(usual)
    assert goes_on(QueueHarness(ready.policy, ready.journal)) == goes_on(ready)
    for queue in (usual, ready):
        queue.exchange(end, slots=0)
        queue.tick(1.0)
    assert goes_on(ready) == goes_on(usual)
    assert ready.ended == usual.ended


def chain(count: int, **fields: object) -> SubmitGroup:
    """Return a chain of jobs c0, c1, …"""
    jobs = [
        submission(
            f"c{n}",
            replace(
                header(batch_id="graph"),
                index=n,
                needs=(Need(f"c{n - 1}"),) if n else (),
                on_error="fail" if n else "",
                **fields,
            ),
        )
        for n in range(count)
    ]
    return SubmitGroup(jobs, batch=BatchSpec("graph", "chain"))


def prepared(engine: QueueEngine, group: SubmitGroup) -> Submit:
    made = engine.prepare(group)
    assert len(list(made.in_parts(2, now=1.0))) == (len(group.jobs) + 1) // 2
    return Submit([group], prepared={"graph": made})


def test_nothing_of_it_is_seen_before_it_is_accepted() -> None:
    queue = QueueHarness()
    before = queue.engine.fingerprint()
    command = prepared(queue.engine, chain(5))
    assert queue.engine.fingerprint() == before
    assert queue.do(command).reply == [None]
    assert [event.name for event in queue.events] == ["batch:submitted"], "as one, like a batch sent in parts"


@pytest.mark.parametrize("meanwhile", ["job", "batch", "gone"])
def test_what_happens_while_it_is_made_ready_counts(meanwhile: str) -> None:
    queue = QueueHarness()
    queue.submit("other")
    group = chain(4)
    group.jobs[2].header.needs = (Need("c1"), Need("other"))
    command = prepared(queue.engine, group)
    if meanwhile == "job":
        queue.submit("c3")
    elif meanwhile == "batch":
        queue.do(Submit([SubmitGroup([submission("d", header(batch_id="graph"))], batch=BatchSpec("graph"))]))
    else:
        queue.do(Cancel(["other"]))
    (refusal,) = queue.do(command).reply
    assert refusal.kind == {"job": "duplicate_job", "batch": "duplicate_batch", "gone": "invalid_input"}[meanwhile]
    assert "c0" not in queue.engine.core.live


def test_a_group_that_does_not_fit_is_refused_whole() -> None:
    queue = QueueHarness(changed(POLICY, max_depth=3))
    (refusal,) = queue.do(prepared(queue.engine, chain(4))).reply
    assert refusal.kind == "queue_full"
    assert not queue.engine.core.live


def test_many_that_wait_for_a_job_that_failed_hear_of_it_some_at_a_time() -> None:
    queue = QueueHarness(changed(POLICY, most_at_once=2))
    jobs: list[Submission] = [
        submission(f"c{n}", replace(header(batch_id="graph"), index=n, needs=(Need("gone"),), on_error="fail"))
        for n in range(5)
    ]
    command = prepared(queue.engine, SubmitGroup(jobs, batch=BatchSpec("graph", "graph")))
    queue.do(changed(command, ended={"gone": "failed"}))
    assert len(queue.engine.core.live) == 3
    queue.restart()
    queue.do(Tick())
    assert len(queue.engine.core.live) == 1
    queue.do(Tick())
    assert not queue.engine.core.live


def test_its_first_step_is_claimed_and_frees_the_next() -> None:
    queue = QueueHarness()
    queue.do(prepared(queue.engine, chain(3)))
    for n in range(3):
        assert queue.claim(3) == [f"c{n}"]
        queue.exchange(completed(f"c{n}"), slots=0)
    assert not queue.engine.core.live
