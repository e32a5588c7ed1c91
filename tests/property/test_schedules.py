"""Schedules under restarts, lost commits, clocks that jump, slow runs: every tick is dealt with once, by its rule."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.cron import Cron
from aiqueue.engine import Tick
from aiqueue.engine.schedule_ticks import tick_job_id
from aiqueue.engine.schedules import GRACE_S, MAX_WAITING
from aiqueue.testing.jobs import completed
from tests.tools.schedules import SCHEDULE, ScheduleHarness

LINES = ["* * * * *", "*/7 * * * *", "30 1 * * *", "*/20 * * * * *", "0,30 0-3 * * *"]
ZONES = ["UTC", "Europe/London", "America/New_York"]
STARTS = ["2023-03-25T22:00:00", "2023-10-28T22:00:00", "2024-03-01T00:00:00"]  # before changes of clocks

lines, zones, starts = st.sampled_from(LINES), st.sampled_from(ZONES), st.sampled_from(STARTS)
overlaps, catch_ups = st.sampled_from(["skip", "queue"]), st.sampled_from(["none", "last", "all"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([1.0, 20.0, 60.0, 61.0, 500.0, 3_600.0, 90_000.0])),
        st.tuples(st.just("jump"), st.sampled_from([-7_200.0, -61.0, -1.0, 30.0, 7_200.0])),
        st.tuples(st.sampled_from(["finish", "restart", "lose the commit", "pause", "resume"]), st.just(0.0)),
    ),
    min_size=1,
    max_size=30,
)


@dataclass
class Model:
    """What must become of each tick, worked out from a list of all of them."""

    cron: Cron
    overlap: str
    catch_up: str
    dealt_until: float  #: ticks up to this have been dealt with
    running: bool = False
    enabled: bool = True
    waiting: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)

    def tick(self, now: float) -> None:
        """Deal with what has come due by ``now``."""
        due = self._due(now) if self.enabled else []
        if due:
            self._decide(due, late=now - due[-1] > GRACE_S)
            self.dealt_until = due[-1]
        if self.enabled and self.waiting and not self.running:
            self.started.append(self.waiting.pop(0))
            self.running = True

    def _due(self, now: float) -> list[float]:
        due, at = [], self.dealt_until
        while (following := self.cron.next_after(at)) is not None and following <= now:
            due.append(following)
            at = following
        return due

    def _decide(self, due: list[float], *, late: bool) -> None:
        if self.catch_up == "all" and (late or len(due) > 1):
            self.waiting = (self.waiting + due[-MAX_WAITING:])[-MAX_WAITING:]
        elif late and self.catch_up == "none":
            return
        elif self.overlap == "queue":
            self.waiting = (self.waiting + due[-1:])[-MAX_WAITING:]
        elif not self.running and not self.waiting:
            self.waiting = due[-1:]


class Run:
    """The engine and the model, told the same."""

    def __init__(self, line: str, zone: str, start: str, overlap: str, catch_up: str) -> None:
        self.queue = ScheduleHarness()
        self.queue.set_clock(start)
        self.queue.add(line, timezone=zone, overlap=overlap, catch_up=catch_up)
        self.model = Model(Cron(line, zone), overlap, catch_up, self.queue.clock.now())
        self.jobs: list[str] = []
        self.put_back = False
        self.queue.journal.on_commit = lambda rows: self.jobs.extend(job_id for _, job_id, _, _ in rows.jobs)

    def do(self, what: str, seconds: float) -> None:
        """Carry out one step and compare."""
        queue, model = self.queue, self.model
        if what == "pass":
            queue.clock.advance(seconds)
        elif what == "jump":
            self.put_back |= seconds < 0
            queue.clock._now += seconds
            queue.restart()  # a queue reads the machine's clock when it starts
        elif what == "restart":
            before = self._facts()
            queue.restart()
            assert self._facts() == before
        elif what == "lose the commit":
            queue.engine.handle(Tick(), now=queue.clock.now())
            queue.restart()
        elif what == "finish":
            granted = queue.exchange(slots=10)
            queue.exchange(*(completed(job.id, job.attempt) for job in granted.claims), slots=0)
            model.running = False
        else:
            self._pause_or_resume(what)
        if what != "finish":
            queue.tick()
            model.tick(queue.clock.now())
        self.compare()

    def _facts(self) -> dict[str, Any]:
        """Return what a restart must bring back. A job of a later time than the clock's is taken to be of now."""
        facts = self.queue.engine.fingerprint()
        for job in facts["live"].values() if self.put_back else ():
            del job["created_at"], job["since"]
        return facts

    def _pause_or_resume(self, what: str) -> None:
        self.queue.change(what)
        if what == "resume" and not self.model.enabled:
            self.model.dealt_until = max(self.model.dealt_until, self.queue.clock.now())
        self.model.enabled = what == "resume"

    def compare(self) -> None:
        """Check that exactly the right ticks have jobs, one each."""
        assert self.jobs == [tick_job_id(SCHEDULE, tick) for tick in self.model.started]
        assert len(set(self.jobs)) == len(self.jobs)
        state = self.queue.schedule().state
        assert state.waiting == self.model.waiting
        assert state.fired == len(self.model.started)


@settings(max_examples=200)
@given(line=lines, zone=zones, start=starts, overlap=overlaps, catch_up=catch_ups, steps=steps)
def test_every_tick_is_dealt_with_once_by_its_rule(
    line: str, zone: str, start: str, overlap: str, catch_up: str, steps: list[tuple[str, float]]
) -> None:
    run = Run(line, zone, start, overlap, catch_up)
    for what, seconds in steps:
        run.do(what, seconds)


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_nothing_is_lost_or_doubled_in_a_long_life(catch_up: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    run = Run("*/5 * * * *", "Europe/London", "2023-10-28T22:00:00", "queue", catch_up)
    for _ in range(400):
        run.do("pass", draw.uniform(1.0, 200.0))
        run.do(draw.choice(["finish", "finish", "restart", "lose the commit"]), 0.0)
    for _ in range(MAX_WAITING):
        run.do("finish", 0.0)
        run.do("pass", 0.0)
    ticks = run.model.cron.after(1_698_530_400.0, count=len(run.jobs))
    # Late by less than a minute or two each time: with these rules none may be missing where every tick counts.
    if catch_up == "all":
        assert run.jobs == [tick_job_id(SCHEDULE, tick) for tick in ticks]
    assert len(run.jobs) > 50
