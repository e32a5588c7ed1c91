"""Many schedules due at once, and long downtimes: each step does little, and a crash undoes no earlier step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from aiqueue.cron import Cron
from aiqueue.engine import Exchange, Tick
from aiqueue.engine.schedule_records import Schedule
from aiqueue.engine.schedules import MAX_WAITING
from aiqueue.testing.jobs import POOL, completed
from tests.tools.queue_harness import POLICY, WORKER
from tests.tools.schedules import SCHEDULE, ScheduleHarness

COUNT, MOST = 40, 100
DAY_S = 86_400.0
ASKED_OF_ONE = 10 * MAX_WAITING  #: questions about a line that one schedule costs at most, whatever has passed
LINES = ["* * * * * *", "* * * * *", "*/15 9-17 * * mon-fri", "0 0 29 2 *", "* * * 2 sun#5"]


class Queue(ScheduleHarness):
    """A queue that does little in a step, with many schedules, and counts what it does."""

    def __init__(self) -> None:
        super().__init__(replace(POLICY, most_at_once=MOST))
        self.asked = 0

    def add_many(self, expression: str, **fields: object) -> list[str]:
        """Add schedules that are alike; return their ids."""
        return [self.add(expression, number=number, **fields) for number in range(COUNT)]

    def is_due(self) -> bool:
        """Tell whether something is due now."""
        due = self.engine.next_due(now=self.clock.now())
        return due is not None and due <= self.clock.now()

    def steps(self) -> Iterator[tuple[int, int]]:
        """Tick until nothing is due; yield how many jobs and how many questions about lines each step brought."""
        while self.is_due():
            before = self.asked
            effects = self.do(Tick())
            yield len(effects.rows.jobs), self.asked - before

    def dealt_with(self, ids: list[str]) -> int:
        """Return how many of the schedules have dealt with what was due."""
        return sum(self.schedule(each).state.fire_at > self.clock.now() for each in ids)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Return a queue that counts the questions about lines."""
    made, ask = Queue(), Cron.next_after

    def counted(cron: Cron, at: float) -> float | None:
        made.asked += 1
        return ask(cron, at)

    monkeypatch.setattr(Cron, "next_after", counted)
    return made


def test_schedules_that_are_due_at_once_fire_some_in_a_step(queue: Queue) -> None:
    ids = queue.add_many("* * * * *")
    queue.clock.advance(60.0)
    jobs, asked = zip(*queue.steps(), strict=True)
    assert max(jobs) <= MOST / 10
    assert max(asked) <= MOST
    assert sum(jobs) == COUNT
    assert [queue.fired(each) for each in ids] == [["00:01"]] * COUNT


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
@pytest.mark.parametrize("line", LINES)
def test_a_long_downtime_costs_a_step_and_a_schedule_no_more_than_a_short_one(
    queue: Queue, line: str, catch_up: str
) -> None:
    ids = queue.add_many(line, catch_up=catch_up, jitter_ms=500)
    queue.clock.advance(10 * 366 * DAY_S)
    for jobs, asked in queue.steps():
        assert jobs <= MOST / 10
        assert asked <= MOST + ASKED_OF_ONE
    assert queue.dealt_with(ids) == COUNT
    assert all(queue.schedule(each).state.runs for each in ids)


def test_a_crash_between_steps_keeps_what_was_dealt_with(queue: Queue) -> None:
    ids = queue.add_many("*/5 * * * *")
    queue.clock.advance(3 * DAY_S)
    dealt = []
    while queue.is_due():
        next(queue.steps())
        queue.restart()  # as of a queue that is ended after each step
        dealt.append(queue.dealt_with(ids))
    assert dealt == sorted(set(dealt))
    assert dealt[-1] == COUNT
    assert [queue.schedule(each).state.fired for each in ids] == [1] * COUNT


def test_what_is_due_longest_fires_first(queue: Queue) -> None:
    late = queue.add_many("2,3 * * * *")
    early = queue.add("1 * * * *", number=COUNT)
    queue.clock.advance(180.0)
    next(queue.steps())
    assert queue.fired(early) == ["00:01"]
    assert queue.dealt_with(late) < COUNT


def test_a_schedule_that_lags_holds_up_no_other(queue: Queue) -> None:
    lagging = queue.add("* * * * * *", number=COUNT, catch_up="all")
    others = queue.add_many("* * * * *")
    queue.clock.advance(60.0)
    list(queue.steps())
    assert len(queue.schedule(lagging).state.waiting) > 1
    assert queue.dealt_with(others) == COUNT
    assert not queue.is_due()  # it waits for its run, and not in steps without an end


def test_the_end_of_a_run_looks_at_its_schedule_alone(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.add_many("* * * * *")
    queue.clock.advance(60.0)
    list(queue.steps())
    looked: list[str] = []
    wakes_at = Schedule.wakes_at.fget

    def counted(schedule: Schedule) -> float | None:
        looked.append(schedule.spec.id)
        return wakes_at(schedule)

    monkeypatch.setattr(Schedule, "wakes_at", property(counted))
    (claim,) = queue.exchange(slots=1).claims
    queue.exchange(completed(claim.id, claim.attempt), slots=0)
    assert looked == [f"{SCHEDULE[:-2]}{claim.id[-2:]}"]


def test_many_runs_of_one_schedule_that_end_at_once_write_it_once(queue: Queue) -> None:
    schedule = queue.add("* * * * *")
    for number in range(MAX_WAITING):
        queue.run_now(f"by hand {number}")
    granted = queue.exchange(slots=1_000)
    outcomes = [completed(job.id, job.attempt) for job in granted.claims]
    effects = queue.do(Exchange(WORKER, POOL, 0, outcomes))
    assert [row[0] for row in effects.rows.schedules] == [schedule]
    assert {status for _, _, status in queue.history()} == {"completed"}


def test_a_removed_schedule_is_due_no_more_and_a_paused_one_neither(queue: Queue) -> None:
    ids = queue.add_many("* * * * *")
    for number, each in enumerate(ids):
        queue.change("remove" if number % 2 else "pause", each)
    queue.clock.advance(DAY_S)
    assert list(queue.steps()) == []
    assert queue.engine.next_due(now=queue.clock.now()) is None
