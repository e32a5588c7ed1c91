"""Batches in the engine: what random sequences would show only now and then."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from aiqueue.engine import QueueEngine, Submit
from aiqueue.engine.batch_records import decode_stored_batch, encode_batch
from aiqueue.engine.batches import OPEN_S
from aiqueue.engine.commands import Steer
from aiqueue.engine.group import WINDOW
from aiqueue.errors import RateLimited
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import BatchSpec, Need, Submission, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, header
from tests.tools.queue_harness import QueueHarness


def job(name: str, batch: str = "b", level: AIJobPriority = AIJobPriority.MEDIUM, **fields: object) -> Submission:
    return Submission(name, replace(header(level, batch_id=batch), **fields), b"p")


def submit(queue: QueueHarness, *jobs: Submission, **fields: object) -> None:
    spec = replace(BatchSpec("b"), **fields)
    assert queue.submit_groups(SubmitGroup(list(jobs), batch=spec)) == [None]


def test_a_batch_at_its_limit_lets_others_pass_and_keeps_its_order(queue: QueueHarness) -> None:
    submit(queue, *(job(f"b{n}") for n in range(5)), max_concurrency=2)
    queue.submit("other-1", "other-2")
    assert queue.claim(10) == ["b0", "b1", "other-1", "other-2"]
    queue.exchange(completed("b1"), slots=0)
    assert queue.claim(10) == ["b2"]
    queue.exchange(failed("b0"), slots=0)  # it waits for its retry, so another may start
    assert queue.claim(10) == ["b3"]
    queue.tick(5.0)
    queue.exchange(completed("b2"), completed("b3"), slots=0)
    assert queue.claim(10) == ["b0", "b4"], "a retried job finds its old place"


def test_a_wide_batch_shows_the_lanes_a_window_and_is_served_in_order(queue: QueueHarness) -> None:
    names = [f"b{n}" for n in range(WINDOW * 3)]
    submit(queue, *map(job, names))
    queue.submit("later")
    assert sum(sum(lane.queued) for lane in queue.engine.core.lanes) == WINDOW + 1
    assert queue.claim(len(names) + 1) == [*names, "later"]


def test_a_sealed_batch_is_served_by_level_and_then_in_its_order(queue: QueueHarness) -> None:
    levels = [AIJobPriority.LOW, AIJobPriority.HIGH, AIJobPriority.LOW, AIJobPriority.HIGH]
    jobs = [job(f"b{n}", level=levels[n % 4], index=n) for n in range(4 * WINDOW)]
    submit(queue, *jobs[:10], is_open=True)
    assert queue.submit_groups(SubmitGroup(jobs[10:], part_of="b")) == [None]
    assert queue.claim(5) == []
    before = queue.engine.core.counters.next_event
    effects = queue.do(Steer("b", "seal", len(jobs)))
    assert (len(effects.rows.states), len(effects.rows.jobs), len(effects.rows.batch_states)) == (0, 0, 1)
    assert queue.engine.core.counters.next_event == before + 1, "announced as one"
    assert queue.engine.core.blocked == len(jobs) - 2_000, "so many become ready in one step"
    assert queue.go_on() == 2
    assert (queue.engine.core.blocked, sum(queue.engine.core.waiting)) == (0, len(jobs))
    sealed = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == sealed
    served = queue.claim(len(jobs))
    assert served == [each.id for each in sorted(jobs, key=lambda each: (each.header.level, each.header.index))]


def test_a_cancel_leaves_nothing_held_whatever_stood_where(queue: QueueHarness) -> None:
    submit(queue, *(job(f"b{n}") for n in range(2 * WINDOW)), max_concurrency=3)
    queue.do(Steer("b", "pause"))
    submit(queue, *(job(f"c{n}", batch="c") for n in range(WINDOW + 50)), id="c")
    assert len(queue.claim(2)) == 2
    held = queue.engine.core.groups.held
    assert sum(map(sum, held.values())) > WINDOW
    for batch in "bc":
        queue.do(Steer(batch, "cancel"))
    while queue.engine.core.groups.stopping:
        queue.tick()
    assert {count for counts in held.values() for count in counts} == {0}
    assert (sum(queue.engine.core.waiting), sum(sum(lane.queued) for lane in queue.engine.core.lanes)) == (0, 0)
    assert queue.claim(10) == []
    assert set(queue.engine.core.groups.live) == {"c"}, "two of its jobs are being stopped"
    assert queue.engine.core.groups.live["c"].held_ids == set()


def test_a_paused_batch_gives_back_what_stood_in_the_lanes(queue: QueueHarness) -> None:
    submit(queue, *(job(f"b{n}") for n in range(10)))
    queue.do(Steer("b", "pause"))
    assert queue.claim(5) == []
    queue.restart()
    assert queue.claim(5) == []
    queue.do(Steer("b", "resume"))
    assert queue.claim(5) == [f"b{n}" for n in range(5)]


def test_a_large_open_batch_is_forgotten_in_steps_and_nobody_sees_what_is_left_of_it(queue: QueueHarness) -> None:
    submit(queue, *(job(f"b{n}", index=n) for n in range(2_500)), is_open=True)
    assert len(queue.do(Steer("b", "drop")).rows.deletes) == 500
    for action in ("seal", "drop", "cancel"):
        assert queue.do(Steer("b", action, count=2_500)).reply.kind == "batch_not_found"
    (refusal,) = queue.submit_groups(SubmitGroup([job("late", index=2_500)], part_of="b"))
    assert refusal is not None
    queue.cancel("b1500")
    queue.tick()
    assert queue.engine.core.groups.stopping
    queue.restart()  # it goes on by itself
    assert queue.engine.next_due(now=queue.clock.now()) == queue.clock.now()
    for action in ("seal", "drop", "touch"):
        assert queue.do(Steer("b", action, count=1_500)).reply.kind == "batch_not_found"
    queue.tick()
    queue.go_on()
    assert not any(queue.is_live(f"b{n}") for n in range(2_500))
    assert not queue.engine.core.groups
    assert queue.engine.core.counters.batches == 0


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_job_that_is_set_aside_goes_with_its_batch(queue: QueueHarness, is_marked: bool) -> None:
    submit(queue, *(job(f"b{n}", index=n) for n in range(1_000)), is_open=True)
    if is_marked:
        queue.do(Steer("b", "drop"))
    events = len(queue.events)
    with queue.journal.recover() as found:
        queue.engine = QueueEngine.load(queue.policy, **found._asdict(), now=queue.clock.now(), without={"b900"})
    queue.do(queue.engine.aside)
    assert queue.state_of("b900") == ("" if is_marked else "failed")
    if not is_marked:
        queue.do(Steer("b", "drop"))
    queue.go_on()
    counters = queue.engine.core.counters
    assert (queue.journal.count_jobs(), counters.accepted, counters.ended, counters.batches) == (0, 0, {}, 0)
    assert len(queue.events) - events == int(not is_marked)


@pytest.mark.parametrize("part", [(1, 1, 2**60), (1, 5, 3), (1, 2, 3), (1, 3, 3), (1, -5, 3), (2, 1, 3)])
@pytest.mark.parametrize("is_marked", [False, True])
def test_a_damaged_row_of_a_part_takes_no_other_jobs_with_it(
    queue: QueueHarness, part: tuple[int, int, int], is_marked: bool
) -> None:
    submit(queue, *(job(f"b{n}", index=n) for n in range(3)), is_open=True)
    queue.submit("other-1", "other-2", "other-3", "other-4")
    with queue.journal.recover() as found:
        number, spec, stored = found.batches[0]
        marked = replace(decode_stored_batch(stored), dropped=is_marked)
        damaged = found._replace(parts=[part], batches=[(number, spec, encode_batch(marked))])
        queue.engine = QueueEngine.load(queue.policy, **damaged._asdict(), now=queue.clock.now())
    if not is_marked:
        queue.do(Steer("b", "drop"))
    queue.go_on()
    others = {f"other-{n}" for n in range(1, 5)}
    assert set(queue.engine.core.live) == others
    assert queue.journal.jobs([*others, "b0", "b1", "b2"]).keys() == others


def test_a_live_batch_whose_row_says_that_it_ended_goes_on_as_it_was(queue: QueueHarness) -> None:
    submit(queue, job("b0"), is_open=True)
    with queue.journal.recover() as found:
        number, spec, stored = found.batches[0]
        damaged = found._replace(
            batches=[(number, spec, encode_batch(replace(decode_stored_batch(stored), ended_at=2.0)))]
        )
        queue.engine = QueueEngine.load(queue.policy, **damaged._asdict(), now=queue.clock.now())
    assert queue.submit_groups(SubmitGroup([job("b1", index=1)], part_of="b")) == [None]
    queue.restart()
    assert queue.claim(2) == [], "it is not sealed"
    queue.do(Steer("b", "seal", count=2))
    assert queue.claim(2) == ["b0", "b1"]


def test_an_open_batch_is_dropped_when_nothing_more_comes(queue: QueueHarness) -> None:
    submit(queue, job("b0"), is_open=True)
    queue.tick(OPEN_S - 1)
    assert queue.submit_groups(SubmitGroup([job("b1", index=1)], part_of="b")) == [None]
    queue.restart()
    queue.tick(OPEN_S - 1)
    assert queue.is_live("b1")
    queue.tick(1.0)
    assert not queue.is_live("b1")
    assert queue.state_of("b1") == ""
    assert queue.engine.core.counters.accepted == 0
    (refusal,) = queue.submit_groups(SubmitGroup([job("b2", index=2)], part_of="b"))
    assert refusal is not None
    assert refusal.kind == "batch_not_found"


def test_what_is_held_can_be_cancelled_and_expire(queue: QueueHarness) -> None:
    submit(queue, job("b0"), job("b1"), job("b2", expires_at=queue.clock.now() + 5), job("b3"), max_concurrency=1)
    assert queue.claim(5) == ["b0"]
    assert queue.cancel("b1").status == "cancelled"
    queue.tick(6.0)
    assert queue.state_of("b2") == "expired"
    queue.exchange(completed("b0"), slots=0)
    assert queue.claim(5) == ["b3"]


def test_a_job_that_is_not_to_wait_fails_at_a_closed_gate_in_a_batch_too(queue: QueueHarness) -> None:
    queue.submit("first")
    queue.claim(1)
    queue.exchange(failed("first", failure=RateLimited("Provider sim: 429", retry_after_s=60.0).to_failure()), slots=0)
    submit(queue, job("b0", fail_fast=True), job("b1"))
    assert queue.state_of("b0") == "failed"
    submit(queue, job("c0", "c", fail_fast=True), id="c", is_open=True)
    assert queue.is_live("c0")
    queue.do(Steer("c", "seal", 1))
    assert queue.state_of("c0") == "failed"
    assert set(queue.engine.core.groups.live) == {"b"}


def test_a_batch_that_is_sent_again_is_itself(queue: QueueHarness) -> None:
    group = SubmitGroup([job("b0")], batch=BatchSpec("b"))
    assert queue.submit_groups(group) == [None]
    assert queue.submit_groups(group, journaled={"b0": True}) == [None]
    queue.claim(1)
    queue.exchange(completed("b0"), slots=0)
    assert queue.submit_groups(group, journaled={"b0": True}) == [None]
    assert not queue.engine.core.groups.live
    assert queue.engine.core.counters.batches == 1


def test_a_cascade_of_thousands_of_steps_ends_at_once(queue: QueueHarness) -> None:
    steps = [job(f"b{n}", needs=(Need(f"b{n - 1}"),) if n else (), on_error="fail") for n in range(3_000)]
    submit(queue, *steps, kind="chain")
    queue.claim(1)
    queue.exchange(failed("b0", failure=final()), slots=0)
    assert queue.ended == {"failed": 501}, "a step of the loop ends so many of them"
    queue.go_on()
    assert queue.ended == {"failed": 3_000}
    assert not queue.engine.core.live
    names = [event.name for event in queue.events if event.batch_id == "b" and not event.job_id]
    assert names == ["batch:submitted", "batch:ended"]


def test_a_step_comes_free_in_the_very_call_that_reports_the_one_before(queue: QueueHarness) -> None:
    submit(queue, job("b0"), job("b1", needs=(Need("b0"),), on_error="fail"), kind="chain")
    assert queue.claim(5) == ["b0"]
    granted = queue.exchange(completed("b0"))
    assert [each.id for each in granted.claims] == ["b1"]
    assert granted.needs == {"b1": ((Need("b0"),), "fail")}


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([job("b0", batch="other")], "belongs to batch 'other', not 'b'"),
        ([job("b0", needs=(Need("nobody"),), on_error="fail")], "needs job nobody, which is not known"),
        ([job("b0", needs=(Need("b1"),), on_error="fail"), job("b1")], "needs job b1, which is not known"),
        ([job("b0", needs=(Need("b0"),), on_error="fail")], "needs job b0, which is not known"),
        ([job("b0"), job("b1", needs=(Need("b0"),), on_error="explode")], "on_error must be one of"),
    ],
)
def test_jobs_that_can_never_run_are_refused_whole(queue: QueueHarness, jobs: list[Submission], said: str) -> None:
    (refusal,) = queue.do(Submit([SubmitGroup(jobs, batch=BatchSpec("b"))])).reply
    assert said in refusal.message
    assert not queue.engine.core.live
    assert not queue.events
