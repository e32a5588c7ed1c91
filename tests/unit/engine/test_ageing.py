"""Ageing: how long endless urgent work can keep a lower level waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiqueue.levels import LEVELS, AIJobPriority
from aiqueue.testing.jobs import completed, failed
from tests.tools.queue_harness import POLICY, QueueHarness

URGENT, HIGH, MEDIUM, LOW = LEVELS
AGEING = 2.0
SLA_S = [ms / 1e3 for ms in POLICY.sla_ms]


def ageing_queue(ageing: float = AGEING) -> QueueHarness:
    return QueueHarness(replace(POLICY, ageing=ageing, lease_s=1e9))


def first_of(queue: QueueHarness, *levels: AIJobPriority) -> str:
    """Submit a new job of each of ``levels``; return which job is served first."""
    for level in levels:
        queue.submit(f"new-{level}", level=level)
    (taken,) = queue.claim()
    return taken


@pytest.mark.parametrize(
    ("level", "waited_s", "first"),
    [
        (LOW, 119.0, "new-medium"),
        (LOW, 120.0, "old"),  # counts as medium, and its deadline is the earlier one
        (MEDIUM, 59.0, "new-high"),
        (MEDIUM, 60.0, "old"),
        (HIGH, 19.0, "new-urgent"),
        (HIGH, 20.0, "old"),
    ],
)
def test_a_job_rises_one_level_for_each_two_slas_it_waited(level: AIJobPriority, waited_s: float, first: str) -> None:
    queue = ageing_queue()
    queue.submit("old", level=level)
    queue.clock.advance(waited_s)
    assert first_of(queue, LEVELS[level.rank - 1]) == first


@pytest.mark.parametrize(("level", "bound_s"), [(LOW, 360.0), (MEDIUM, 120.0), (HIGH, 20.0)])
def test_at_its_bound_a_job_goes_before_new_urgent_work(level: AIJobPriority, bound_s: float) -> None:
    for waited_s, first in ((bound_s - 0.5, "new-urgent"), (bound_s, "old")):
        queue = ageing_queue()
        queue.submit("old", level=level)
        queue.clock.advance(waited_s)
        assert first_of(queue, URGENT) == first


def test_a_low_job_moves_under_endless_urgent_load() -> None:
    queue = ageing_queue()
    queue.submit("low", level=LOW)
    served = 0
    while queue.is_live("low") and served < 10_000:
        queue.submit(f"urgent-{served}a", f"urgent-{served}b", level=URGENT)  # twice as many as can be served
        (taken,) = queue.claim()
        queue.exchange(completed(taken), slots=0)
        served += 1
        queue.clock.advance(1.0)
    # It is last in line of what counts as urgent and came before its deadline: 60 s of submits, not 360.
    assert 360 <= served <= 361


def test_without_ageing_a_level_stays_what_it_is() -> None:
    queue = ageing_queue(0.0)
    queue.submit("low", level=LOW)
    queue.clock.advance(1e6)
    assert first_of(queue, MEDIUM) == "new-medium"


def test_a_job_keeps_its_age_through_a_retry_and_a_restart() -> None:
    queue = ageing_queue()
    queue.submit("old", level=LOW)
    queue.claim()
    queue.exchange(failed("old"), slots=0)
    queue.tick(400.0)
    queue.restart()
    assert first_of(queue, URGENT) == "old"


def test_a_clock_that_was_set_back_between_two_runs_lowers_no_level() -> None:
    queue = ageing_queue()
    queue.clock.advance(3_600.0)
    queue.submit("urgent", level=URGENT)
    queue.clock = type(queue.clock)()  # an hour earlier
    queue.restart()
    assert first_of(queue, LOW) == "urgent"


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 40), st.sampled_from(LEVELS), st.booleans()), min_size=1, max_size=60),
    ageing=st.sampled_from([0.5, 1.0, 2.0]),
)
@example(arrivals=[(0.0, LOW, False), (361.0, URGENT, True)], ageing=2.0)
def test_nothing_accepted_after_the_deadline_of_a_job_at_its_bound_goes_before_it(
    arrivals: list[tuple[float, AIJobPriority, bool]], ageing: float
) -> None:
    """The bound: after (its rank x ageing x its SLA) only work as urgent and older than its deadline precedes a job."""
    queue = ageing_queue(ageing)
    accepted: dict[str, float] = {}
    waiting: dict[str, AIJobPriority] = {}
    for number, (wait_s, level, serve) in enumerate(arrivals):
        queue.clock.advance(wait_s)
        queue.submit(f"job-{number}", level=level, model=f"m-{number % 3}")
        accepted[f"job-{number}"], waiting[f"job-{number}"] = queue.clock.now(), level
        if not serve:
            continue
        (taken,) = queue.claim()
        taken_level = waiting.pop(taken)
        for name, its_level in waiting.items():
            sla_s = SLA_S[its_level.rank]
            if queue.clock.now() - accepted[name] >= its_level.rank * ageing * sla_s + 1e-3:
                assert accepted[taken] + SLA_S[taken_level.rank] <= accepted[name] + sla_s + 1e-6


def test_a_delayed_job_ages_from_the_time_it_was_to_wait_for() -> None:
    queue = ageing_queue()
    queue.submit("delayed", level=LOW, delay_ms=3_600_000)
    queue.tick(3_599.0)
    queue.submit("before", level=LOW)
    queue.tick(1.0)
    queue.submit("urgent", level=URGENT)
    queue.submit("after", level=LOW)
    assert queue.claim(4) == ["urgent", "before", "delayed", "after"]


def test_the_sla_of_a_delayed_job_counts_from_the_time_it_was_to_wait_for_also_after_a_restart() -> None:
    queue = ageing_queue()
    queue.submit("delayed", level=URGENT, delay_ms=3_600_000)
    queue.tick(3_600.0)
    queue.restart()
    queue.claim()
    queue.clock.advance(2.0)
    queue.exchange(completed("delayed"), slots=0)
    assert queue.engine.core.counters.sla_met[URGENT.rank] == 1
    assert queue.events[-1].at - queue.events[-1].since == 2.0
