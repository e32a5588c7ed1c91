"""What happens to many jobs at once happens some at a time, comes to the same, and survives a crash in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from msgspec.structs import replace as with_fields

from aiqueue.engine.commands import Steer
from aiqueue.engine.group import Group
from aiqueue.errors import RateLimited
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import failed, final, group, header, submission
from tests.tools.queue_harness import POLICY, QueueHarness

JOBS, AT_ONCE = 100, 7
REFUSED = RateLimited("429", status=429, retry_after_s=60.0).to_failure()


def submit(queue: QueueHarness, **fields: object) -> None:
    """Submit all jobs, of no batch."""
    jobs = [submission(f"job-{n}", with_fields(header(), **fields)) for n in range(JOBS)]
    assert queue.submit_groups(group(*jobs)) == [None]


def send(queue: QueueHarness, *, is_open: bool, chained: bool = False, needs: tuple[Need, ...] = (), **fields) -> None:
    """Submit a batch of all jobs."""
    jobs = []
    for n in range(JOBS):
        wants = (Need(f"job-{n - 1}"),) if chained and n else needs
        made = with_fields(header(batch_id="b"), index=n, needs=wants, on_error="fail" if wants else "", **fields)
        jobs.append(submission(f"job-{n}", made))
    assert queue.submit_groups(SubmitGroup(jobs, batch=BatchSpec("b", is_open=is_open))) == [None]


def seal(queue: QueueHarness, **fields) -> None:
    send(queue, is_open=True, **fields)
    queue.do(Steer("b", "seal", JOBS))


def cancel(queue: QueueHarness) -> None:
    send(queue, is_open=False)
    queue.do(Steer("b", "cancel"))


def drop(queue: QueueHarness) -> None:
    send(queue, is_open=True)
    queue.do(Steer("b", "drop"))


def expire(queue: QueueHarness) -> None:
    queue.submit_groups(
        group(*(submission(f"job-{n}", with_fields(header(), expires_in_ms=1_000)) for n in range(JOBS)))
    )
    queue.tick(2.0)


def come_due(queue: QueueHarness) -> None:
    submit(queue, delay_ms=1_000)
    queue.tick(2.0)


def fail_fast(queue: QueueHarness) -> None:
    queue.submit("first")
    queue.claim(1)
    submit(queue, fail_fast=True)
    queue.exchange(failed("first", failure=REFUSED), slots=0)


def fail_first_of_a_chain(queue: QueueHarness) -> None:
    send(queue, is_open=False, chained=True)
    queue.claim(1)
    queue.exchange(failed("job-0", failure=final()), slots=0)


def fail_parent_of_all(queue: QueueHarness) -> None:
    queue.submit("first")
    queue.claim(1)
    send(queue, is_open=False, needs=(Need("first"),))
    queue.exchange(failed("first", failure=final()), slots=0)


@dataclass(frozen=True)
class Case:
    """What happens, and what becomes of each job."""

    happens: Callable[[QueueHarness], None]
    outcome: str


CASES = [
    Case(seal, "queued"),
    Case(lambda queue: seal(queue, delay_ms=60_000), "scheduled"),
    Case(cancel, "cancelled"),
    Case(drop, ""),
    Case(expire, "expired"),
    Case(come_due, "queued"),
    Case(fail_fast, "failed"),
    Case(fail_first_of_a_chain, "failed"),
    Case(fail_parent_of_all, "failed"),
]
NAMES = [
    *("seal", "seal with a delay", "cancel", "drop", "expire", "come due", "fail fast", "chain", "children of one"),
]


def rest(queue: QueueHarness) -> bool:
    """Tell whether nothing is left to be done now."""
    due = queue.engine.next_due(now=queue.clock.now())
    return due is None or due > queue.clock.now()


def outcomes(queue: QueueHarness) -> list[str]:
    """Return what each job is now."""
    return [
        queue.job(f"job-{n}").state.value if queue.is_live(f"job-{n}") else queue.state_of(f"job-{n}")
        for n in range(JOBS)
    ]


@pytest.fixture(params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    """Return each case in turn."""
    found: Case = request.param
    return found


def test_what_happens_to_many_jobs_writes_few_rows_in_a_step(case: Case) -> None:
    queue = QueueHarness(replace(POLICY, most_at_once=AT_ONCE))
    rows = []
    original = queue.engine.handle

    def handle(command, *, now):
        effects = original(command, now=now)
        if not effects.rows.jobs:
            rows.append(len(effects.rows.states) + len(effects.rows.deletes))
        return effects

    queue.engine.handle = handle  # type: ignore[method-assign]
    case.happens(queue)
    assert not rest(queue), "it takes more than one step"
    while not rest(queue):
        queue.tick()
    assert max(rows) <= 4 * AT_ONCE
    assert outcomes(queue) == [case.outcome] * JOBS


def test_steps_come_to_the_same_as_one_and_so_they_do_when_each_is_the_last_before_a_crash(case: Case) -> None:
    at_once = QueueHarness(replace(POLICY, most_at_once=10 * JOBS))
    case.happens(at_once)
    assert rest(at_once)
    in_steps, crashing = (QueueHarness(replace(POLICY, most_at_once=AT_ONCE)) for _ in range(2))
    for queue in (in_steps, crashing):
        case.happens(queue)
        for _ in range(JOBS):
            if queue is crashing:
                queue.restart()
            queue.tick(0.0)
        assert outcomes(queue) == outcomes(at_once) == [case.outcome] * JOBS
        assert queue.ended == at_once.ended
        assert sum(queue.engine.core.waiting) == sum(at_once.engine.core.waiting)
        assert queue.engine.core.blocked == 0
        assert queue.engine.core.counters.cascades == []


def test_a_job_whose_time_is_over_is_not_started_though_its_turn_to_expire_has_not_come() -> None:
    queue = QueueHarness(replace(POLICY, most_at_once=AT_ONCE))
    for n in range(JOBS):
        queue.submit_groups(group(submission(f"job-{n}", with_fields(header(), expires_in_ms=1_000))))
    queue.submit("in time")
    queue.clock.advance(2.0)
    claimed: list[str] = []
    for _ in range(JOBS):
        claimed += queue.claim(3)
        queue.tick()
    assert claimed == ["in time"]
    assert queue.ended == {"expired": JOBS}
    assert sum(queue.engine.core.waiting) == 0


def test_a_gate_stays_closed_until_all_have_failed_that_would_not_wait_for_it() -> None:
    queue = QueueHarness(replace(POLICY, most_at_once=AT_ONCE))
    fail_fast(queue)
    queue.clock.advance(61.0)
    assert queue.claim(JOBS) == []
    while not rest(queue):
        queue.tick()
    assert queue.ended == {"failed": JOBS}
    assert queue.gate_events()[-1] == ("gate:opened", 0.0)


def test_a_batch_is_served_by_level_while_its_jobs_become_ready() -> None:
    queue = QueueHarness(replace(POLICY, most_at_once=1))
    levels = [3, 2, 1, 0] * 10
    jobs = [submission(f"b{n}", with_fields(header(batch_id="b"), index=n, level=levels[n])) for n in range(40)]
    queue.submit_groups(SubmitGroup(jobs, batch=BatchSpec("b", is_open=True)))
    queue.do(Steer("b", "seal", 40))
    served: list[int] = []
    while len(served) < 40:
        served += [queue.job(job_id).level for job_id in queue.claim(2)]
        queue.tick()
    assert served == sorted(served)


def test_the_jobs_of_a_batch_are_found_without_a_look_at_others() -> None:
    queue = QueueHarness()
    send(queue, is_open=False)
    found: Group = queue.engine.core.groups.live["b"]
    assert [job.id for job in found.members()] == [f"job-{n}" for n in range(JOBS)]
    for n in range(JOBS - 5):
        queue.cancel(f"job-{n}")
    assert len(found._jobs) <= 2 * 5 + 64 + 1, "ended jobs are let go"
    assert [job.id for job in found.members()] == [f"job-{n}" for n in range(JOBS - 5, JOBS)]
