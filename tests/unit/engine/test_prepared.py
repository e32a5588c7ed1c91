"""Large groups of linked jobs: made ready in parts, they are accepted as they would be in the usual way.

One thing may differ: the order in which jobs end that can't run because one that they need failed before, and so which
of several failed needs their error names. See ``prepared``.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace as changed
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.engine import Cancel, QueueEngine, Submit, Tick
from aiqueue.engine.records import decode_progress
from aiqueue.errors import DependencyFailed
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import BatchSpec, Failure, Need, Refusal, Submission, SubmitGroup, decode_header
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
            redriven_from=draw(st.sampled_from([""] * 20 + ["dead-0", "dead-1", "live", "unknown"])),
        )
        jobs.append(submission(ids[at] if draw(st.integers(0, 40)) else ids[0], made))
    spec = BatchSpec("graph", "graph", max_concurrency=draw(st.sampled_from([0, 1, 2])))
    return SubmitGroup(jobs, batch=spec, metadata=draw(st.sampled_from([b"", b"{}"])))


def queue_with_others() -> QueueHarness:
    queue = QueueHarness(changed(POLICY, most_at_once=2))
    queue.submit("dead-0", "dead-1", max_retries=0)
    for job_id in queue.claim(2):
        queue.exchange(failed(job_id), slots=0)
    queue.submit("live")
    assert queue.claim() == ["live"]
    return queue


def dead_letters(queue: QueueHarness) -> dict[str, tuple[int, str, bytes]]:
    """Return the dead letters as a command brings them."""
    rows = queue.journal.jobs(["dead-0", "dead-1"]).values()
    return {row.id: (row.seq, row.state, row.progress) for row in sorted(rows, key=lambda row: row.seq)}


def submitted(queue: QueueHarness, group: SubmitGroup, *, ready: bool) -> list[Refusal | None]:
    """Submit a group, in the usual way or made ready beforehand."""
    ended = {job_id: state for job_id, state in OUTSIDE.items() if state}
    prepared = queue.engine.prepare(group)
    if ready:
        for _ in prepared.in_parts(2, now=queue.clock.now()):
            pass
    sent = Submit([group], ended=ended, repeated=dead_letters(queue), prepared={id(group): prepared} if ready else {})
    return list(queue.do(sent).reply)


def goes_on(queue: QueueHarness, group: SubmitGroup) -> dict[str, Any]:
    """Carry out all that is pending; return what a restart must bring back and how jobs ended.

    Left out are the events' numbers and the order in which jobs ended.
    """
    queue.go_on()
    found = queue.engine.fingerprint()
    found["counters"]["next_event"] = 0
    if "graph" in found["groups"]:
        number, spec, stored, *counts = found["groups"].pop("graph")
        errors = sorted((job_id, kind) for job_id, kind, _ in stored.first_errors)
        found["graph"] = number, spec, replace(stored, first_errors=errors), counts
    found["ends"] = {job.id: how_it_ended(queue, job.id) for job in group.jobs}
    rows = queue.journal.jobs(job.id for job in group.jobs).values()
    found["metadata"] = {row.id: decode_header(row.header).metadata or row.metadata for row in rows}
    assert all(is_to_blame(queue, job, group) for job in group.jobs)
    return found


def how_it_ended(queue: QueueHarness, job_id: str) -> tuple[str, str]:
    """Return the job's state as the journal has it, and the kind of its error."""
    failure = failure_of(queue, job_id)
    return queue.state_of(job_id), failure.kind if failure else ""


def failure_of(queue: QueueHarness, job_id: str) -> Failure | None:
    """Return the failure that the journal has of a job."""
    stored = queue.journal.jobs([job_id])
    return decode_progress(stored[job_id].progress).failure if stored and stored[job_id].progress else None


def is_to_blame(queue: QueueHarness, job: Submission, group: SubmitGroup) -> bool:
    """Return True unless the job's error blames a need that it does not have, or that completed."""
    failure = failure_of(queue, job.id)
    if failure is None or failure.kind != DependencyFailed.kind:
        return True
    named = {need.job_id: queue.state_of(need.job_id) or OUTSIDE.get(need.job_id) for need in job.header.needs}
    said = (f"job {job_id} ended as {state}," for job_id, state in named.items() if state != "completed")
    return any(words in failure.message for words in said)


def job(job_id: str, *needs: str) -> Submission:
    """Return a job of the graph that fails if one that it needs does."""
    on_error = "fail" if needs else ""
    made = replace(header(batch_id="graph"), index=int(job_id[1:]), needs=tuple(map(Need, needs)), on_error=on_error)
    return submission(job_id, made)


def graph(*jobs: Submission) -> SubmitGroup:
    return SubmitGroup(list(jobs), batch=BatchSpec("graph", "graph"))


@example(graph(job("g0", "failed"), job("g1", "failed"), job("g2", "g0"), job("g3")), completed("live"))
@example(graph(job("g0", "failed"), job("g1", "failed", "g0"), job("g2")), completed("live"))
@given(group=graphs(), end=st.sampled_from([completed("live"), failed("live", failure=final())]))
def test_a_graph_made_ready_beforehand_is_accepted_as_any_other(group: SubmitGroup, end: Any) -> None:
    usual, ready = queue_with_others(), queue_with_others()
    assert submitted(ready, deepcopy(group), ready=True) == submitted(usual, deepcopy(group), ready=False)
    assert goes_on(ready, group) == goes_on(usual, group)
    assert goes_on(QueueHarness(ready.policy, ready.journal), group) == goes_on(ready, group)
    for queue in (usual, ready):
        queue.exchange(end, slots=0)
        queue.tick(1.0)
    assert goes_on(ready, group) == goes_on(usual, group)
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
    for _ in made.in_parts(2, now=1.0):
        pass
    return Submit([group], prepared={id(group): made})


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


def full_graph(count: int) -> SubmitGroup:
    """Return a graph in which each job needs all that come before it."""
    return graph(*(job(f"g{at}", *(f"g{before}" for before in range(at))) for at in range(count)))


def test_few_jobs_with_many_needs_are_made_ready_in_parts_too() -> None:
    group = full_graph(40)
    made = QueueHarness().engine.prepare(group)
    done: list[int] = []
    for _ in made.in_parts(50, now=1.0):
        done.append(sum(1 + len(each.header.needs) for each in group.jobs[: len(made.jobs)]))
    assert done[-1] == 40 + 40 * 39 // 2
    assert max(after - before for before, after in zip([0, *done], done, strict=False)) < 50 + 40


def test_jobs_that_let_go_of_many_needs_end_some_at_a_time() -> None:
    queue = QueueHarness(changed(POLICY, most_at_once=10))
    group = full_graph(100)
    queue.do(prepared(queue.engine, group))
    needs = {each.id: len(each.header.needs) for each in group.jobs}
    live = set(queue.engine.core.live)
    queue.do(Cancel(["g0"]))
    let_go = []
    while live:
        left = set(queue.engine.core.live)
        let_go.append(sum(needs[job_id] for job_id in live - left))
        live = left
        queue.tick()
    assert sum(let_go) == 100 * 99 // 2
    assert max(let_go) <= 10 * 32 + 99, "as much as ten jobs, and the last one's own"


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize(("counts", "why"), [([10_001], "10000 at most"), ([9_999] * 11, "100000 times at most")])
def test_more_needs_than_a_graph_may_have_are_refused(counts: list[int], why: str, ready: bool) -> None:
    queue = QueueHarness()
    names = tuple(Need("live") for _ in range(max(counts)))
    jobs = [job(f"g{at}", "live") for at in range(len(counts))]
    for each, count in zip(jobs, counts, strict=True):
        each.header.needs = names[:count]
    queue.submit("live")
    (refusal,) = submitted(queue, graph(*jobs), ready=ready)
    assert refusal is not None
    assert why in refusal.message
    assert queue.engine.core.live.keys() == {"live"}


def test_needs_that_have_ended_before_are_met_in_the_step_that_accepts() -> None:
    queue = QueueHarness(changed(POLICY, most_at_once=2))
    command = prepared(queue.engine, graph(job("g0", *(f"d{n}" for n in range(50)))))
    queue.do(changed(command, ended={f"d{n}": "completed" for n in range(50)}))
    assert not queue.engine.core.links.freed, "each turn would write down all of them"
    assert queue.claim() == ["g0"]


@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_graphs_that_need_the_same_jobs_all_hold_them(counts: list[int]) -> None:
    queue = QueueHarness(changed(POLICY, most_at_once=2))
    names = [f"d{n}" for n in range(max(counts))]
    queue.submit(*names)
    for at, count in enumerate(counts):
        made = replace(header(batch_id=f"b{at}"), needs=tuple(map(Need, names[:count])), on_error="include")
        queue.do(prepared(queue.engine, SubmitGroup([submission(f"f{at}", made)], batch=BatchSpec(f"b{at}", "graph"))))
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    for at in range(len(counts)):
        assert queue.engine.core.links.is_needed("d0")
        queue.cancel(f"f{at}")
    assert not any(map(queue.engine.core.links.is_needed, names))
