"""Many schedules, a few in each step: whenever steps come and the queue crashes, each schedule keeps its rule."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.cron import Cron
from aiqueue.engine import Tick
from aiqueue.engine.schedule_ticks import tick_job_id
from aiqueue.testing.jobs import completed
from tests.property.test_schedules import Model, catch_ups, lines, overlaps, starts, zones
from tests.tools.queue_harness import POLICY
from tests.tools.schedules import ScheduleHarness

rules = st.lists(st.tuples(lines, zones, overlaps, catch_ups), min_size=2, max_size=8)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([1.0, 20.0, 60.0, 61.0, 3_600.0, 300_000.0])),
        st.tuples(st.just("jump"), st.sampled_from([-7_200.0, -61.0, 30.0, 7_200.0])),
        st.tuples(st.sampled_from(["pause", "resume"]), st.integers(0, 7).map(float)),
        st.tuples(st.sampled_from(["step", "step", "step", "lose a step", "restart", "finish", "rest"]), st.just(0.0)),
    ),
    min_size=1,
    max_size=40,
)


class Many:
    """The engine with several schedules, and a model of each that is told when a step deals with its schedule."""

    def __init__(self, start: str, most: int, rules: list[tuple[str, str, str, str]]) -> None:
        self.queue = ScheduleHarness(replace(POLICY, most_at_once=most))
        self.queue.set_clock(start)
        self.models: dict[str, Model] = {}
        for number, (line, zone, overlap, catch_up) in enumerate(rules):
            added = self.queue.add(line, number=number, timezone=zone, overlap=overlap, catch_up=catch_up)
            self.models[added] = Model(Cron(line, zone), overlap, catch_up, self.queue.clock.now())
        self.jobs: list[str] = []
        self.queue.journal.on_commit = lambda rows: self.jobs.extend(job_id for _, job_id, _, _ in rows.jobs)

    def do(self, what: str, number: float) -> None:
        """Carry out one step and compare."""
        queue = self.queue
        if what == "pass":
            queue.clock.advance(number)
        elif what == "jump":
            queue.clock._now += number
            queue.restart()
        elif what == "step":
            self.step()
        elif what == "lose a step":
            queue.engine.handle(Tick(), now=queue.clock.now())
            queue.restart()
        elif what == "restart":
            queue.restart()
        elif what == "finish":
            granted = queue.exchange(slots=1_000)
            queue.exchange(*(completed(job.id, job.attempt) for job in granted.claims), slots=0)
            for model in self.models.values():
                model.running = False
        elif what == "rest":
            self.rest()
        else:
            self.pause_or_resume(what, list(self.models)[int(number) % len(self.models)])
        self.compare()

    def step(self) -> None:
        """Let the queue do as much as it does in a step."""
        effects = self.queue.do(Tick())
        for schedule, _, _ in effects.rows.schedules:
            self.models[schedule].tick(self.queue.clock.now())

    def rest(self) -> None:
        """Let it take steps until nothing is due, which is after one for each schedule at the latest."""
        now = self.queue.clock.now()
        for _ in self.models:
            due = self.queue.engine.next_due(now=now)
            if due is None or due > now:
                break
            self.step()
        for model in self.models.values():
            model.tick(now)  # and with that nothing changes

    def pause_or_resume(self, what: str, schedule: str) -> None:
        """Do that to one of the schedules."""
        model = self.models[schedule]
        self.queue.change(what, schedule)
        if what == "resume" and not model.enabled:
            model.dealt_until = max(model.dealt_until, self.queue.clock.now())
        model.enabled = what == "resume"

    def compare(self) -> None:
        """Check that of each schedule exactly the right ticks have jobs, one each."""
        for schedule, model in self.models.items():
            jobs = [job_id for job_id in self.jobs if job_id[-2:] == schedule[-2:]]
            assert jobs == [tick_job_id(schedule, tick) for tick in model.started]
            assert self.queue.schedule(schedule).state.waiting == model.waiting


@settings(max_examples=150)
@given(start=starts, most=st.sampled_from([1, 30]), rules=rules, steps=steps)
def test_each_of_many_schedules_keeps_its_rule_whatever_steps_and_crashes_come(
    start: str, most: int, rules: list[tuple[str, str, str, str]], steps: list[tuple[str, float]]
) -> None:
    run = Many(start, most, rules)
    for what, number in steps:
        run.do(what, number)
    for what in ("rest", "finish", "rest", "finish", "rest"):  # what waits for its run starts as soon as that ends
        run.do(what, 0.0)
