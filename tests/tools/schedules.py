"""A queue with schedules: what a test says of them, in few words."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from aiqueue.engine import AddSchedule, ChangeSchedule, EnginePolicy, RunSchedule, Tick
from aiqueue.engine.schedule_records import Schedule, ScheduleSpec
from aiqueue.journal.base import Journal
from aiqueue.protocol import Refusal
from aiqueue.testing.jobs import completed, header
from tests.tools.queue_harness import POLICY, QueueHarness

MINUTELY = "* * * * *"
SCHEDULE = "schedule-01890000-0000-7000-8000-000000000000"


def spec(expression: str = MINUTELY, *, number: int = 0, **fields: object) -> ScheduleSpec:
    """Return a schedule; ``number`` tells several apart."""
    made = ScheduleSpec(f"{SCHEDULE[:-2]}{number:02x}", f"schedule {number}", expression, header(), b'{"type":"x"}')
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class ScheduleHarness(QueueHarness):
    """The queue, at the start of a minute and a day in UTC."""

    def __init__(self, policy: EnginePolicy = POLICY, journal: Journal | None = None) -> None:
        super().__init__(policy, journal)
        self.set_clock("2024-03-01T00:00:00")

    def set_clock(self, text: str, zone: str = "UTC") -> None:
        """Let the clock show a time, also one that is past: somebody set it."""
        self.clock._now = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()

    def add(self, expression: str = MINUTELY, **fields: object) -> str:
        """Add a schedule; return its id."""
        found = self.try_to_add(spec(expression, **fields))  # type: ignore[arg-type]
        assert isinstance(found, str), found
        return found

    def try_to_add(self, wanted: ScheduleSpec) -> Refusal | str:
        """Add a schedule; return its id, or why not."""
        reply: Refusal | str = self.do(AddSchedule(wanted)).reply
        return reply

    def change(self, action: str, schedule: str = SCHEDULE) -> Refusal | str:
        """Pause, resume or remove a schedule."""
        reply: Refusal | str = self.do(ChangeSchedule(schedule, action)).reply
        return reply

    def run_now(self, job_id: str, schedule: str = SCHEDULE) -> Refusal | str:
        """Start a job beside the cron line."""
        reply: Refusal | str = self.do(RunSchedule(schedule, job_id)).reply
        return reply

    def pass_minutes(self, count: int = 1) -> None:
        """Let minutes pass with a tick of the queue in each."""
        for _ in range(count):
            self.tick(60.0)

    def tick_ahead(self, ahead_s: float) -> None:
        """Tick while the machine's clock is ahead of the queue's."""
        self.do(Tick(ahead_s=ahead_s))

    def schedule(self, schedule: str = SCHEDULE) -> Schedule:
        """Return a schedule as the engine has it."""
        found = self.engine.core.schedules.find(schedule)
        assert found is not None
        return found

    def history(self, schedule: str = SCHEDULE) -> list[tuple[str, str, str]]:
        """Return the runs: the time of the tick, what came of it, and how its job ended."""
        runs = self.schedule(schedule).state.runs
        return [(f"{datetime.fromtimestamp(run.tick, ZoneInfo('UTC')):%H:%M}", run.outcome, run.status) for run in runs]

    def fired(self, schedule: str = SCHEDULE) -> list[str]:
        """Return the times of the ticks that have started jobs."""
        return [at for at, outcome, _ in self.history(schedule) if outcome == "fired"]

    def job_of(self, at: str, schedule: str = SCHEDULE) -> str:
        """Return the id of the job that the tick at ``at`` has started."""
        found = zip(self.history(schedule), self.schedule(schedule).state.runs, strict=True)
        (job_id,) = [run.job_id for (tick, _, _), run in found if tick == at]
        return job_id

    def finish(self, *job_ids: str) -> None:
        """Let a worker run jobs to their end: these, or all that are ready."""
        granted = self.exchange(slots=1_000)
        assert not job_ids or set(job_ids) <= {job.id for job in granted.claims}
        self.exchange(*(completed(job.id, job.attempt) for job in granted.claims), slots=0)
