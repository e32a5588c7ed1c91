"""Schedules as they are asked for, journaled and shown; and what the engine keeps of them.

A schedule's definition never changes and is written once, with the payload. What changes with each tick is a record of
its own, a few kilobytes at most. Times are seconds since the epoch by the machine's clock.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from aiqueue.cron import Cron, CronError
from aiqueue.engine.due import JobTimes
from aiqueue.protocol import JobHeader, Refusal, Wire

OVERLAPS = ("skip", "queue", "cancel_running")
CATCH_UPS = ("none", "last", "all")
KEPT_RUNS = 50  #: of the history

FIRED, MANUAL, SKIPPED, MISSED, REFUSED = "fired", "manual", "skipped", "missed", "refused"


class ScheduleSpec(Wire):
    """What a schedule is: which job, and when. The header's owner and times are the queue's to set, for each run."""

    id: str
    name: str
    expression: str
    header: JobHeader
    payload: bytes
    timezone: str = "UTC"
    overlap: str = "skip"
    catch_up: str = "last"
    jitter_ms: int = 0
    enabled: bool = True  #: at first
    created_at: float = 0.0  #: set by the queue


class ScheduleRun(Wire):
    """One tick and what came of it; or the first of several ticks that were missed together."""

    tick: float  #: the time that the cron line names; of a manual run, when it was asked for
    at: float  #: when the queue acted on it
    outcome: str  #: fired, manual, skipped (the last run was going on), missed (no one was there), refused
    job_id: str = ""
    status: str = ""  #: how the job ended; empty while it has not
    ended_at: float = 0.0
    reason: str = ""
    count: int = 1  #: ticks that this stands for: of those skipped or missed


class ScheduleState(Wire):
    """The part of a schedule that changes."""

    enabled: bool = True
    last_tick: float = 0.0  #: the latest tick that was dealt with
    next_tick: float = 0.0  #: 0: there is none
    fire_at: float = 0.0  #: ``next_tick`` and its share of the jitter
    fired: int = 0  #: jobs started in all
    #: Ticks whose jobs start when the runs before them have ended.
    waiting: list[float] = msgspec.field(default_factory=list)
    runs: list[ScheduleRun] = msgspec.field(default_factory=list)  #: the last ones, the oldest first
    problem: str = ""  #: why the queue itself has paused it


class ScheduleView(Wire):
    """A schedule as it is listed: without its payload."""

    spec: ScheduleSpec
    state: ScheduleState
    next_ticks: list[float] = msgspec.field(default_factory=list)


class SchedulesCall(Wire):
    """What a client wants of the schedules: ``add``, ``list``, ``get``, ``pause``, ``resume``, ``remove``, ``run``."""

    action: str
    schedule: str = ""  #: id or name; empty: all of them, for ``list``
    spec: ScheduleSpec | None = None  #: to add
    job_id: str = ""  #: of the job to start, made by the client: asked for twice, it runs once
    next_ticks: int = 5  #: how many coming ticks to tell
    with_payload: bool = False  #: of ``get``
    key: str = ""  #: the caller's idempotency key, to add


class SchedulesReply(Wire):
    """The schedules asked for, as they are now (as it was, of one that was removed); or why nothing was done."""

    schedules: list[ScheduleView] = msgspec.field(default_factory=list)
    refusal: Refusal | None = None
    job_id: str = ""  #: of the job that ``run`` started


encode_spec = msgspec.msgpack.Encoder().encode
decode_spec = msgspec.msgpack.Decoder(ScheduleSpec).decode
encode_state = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(ScheduleState).decode
decode_call = msgspec.msgpack.Decoder(SchedulesCall).decode
decode_reply = msgspec.msgpack.Decoder(SchedulesReply).decode


class Schedule:
    """One schedule in the engine's memory."""

    __slots__ = ("cron", "hold_until", "problem", "running", "spec", "state")

    def __init__(self, spec: ScheduleSpec, state: ScheduleState) -> None:
        self.spec, self.state = spec, state
        self.running: dict[str, ScheduleRun] = {}  #: runs whose jobs have not ended, by job id
        self.hold_until = 0.0  #: the queue was full: not before this
        self.cron: Cron | None = None
        self.problem = ""
        try:
            self.cron = Cron(spec.expression, spec.timezone)
        except CronError as error:  # this machine's time zone database may be another one
            self.problem = str(error)

    def facts(self) -> dict[str, object]:
        """Return everything that a restart must bring back."""
        as_dict = msgspec.structs.asdict
        runs = [as_dict(run) for run in self.state.runs]
        return {
            "spec": as_dict(self.spec),
            "state": {**as_dict(self.state), "runs": runs},
            "running": set(self.running),
        }

    def copy_of_state(self) -> ScheduleState:
        """Return the state as it is now."""
        runs = [msgspec.structs.replace(run) for run in self.state.runs]
        return msgspec.structs.replace(self.state, runs=runs, waiting=list(self.state.waiting))

    def spec_without_payload(self) -> ScheduleSpec:
        """Return the spec as it is listed."""
        return msgspec.structs.replace(self.spec, payload=b"")

    @property
    def wakes_at(self) -> float | None:
        """When time alone next makes it do something."""
        state = self.state
        if not state.enabled:
            return None
        if state.waiting and (not self.running or self.spec.overlap == "cancel_running"):
            return min(self.hold_until, state.fire_at) if state.next_tick else self.hold_until
        return state.fire_at if state.next_tick else None


class Schedules:
    """All schedules, by id and by name, and when the next of them is due."""

    def __init__(self) -> None:
        self._by_id: dict[str, Schedule] = {}
        self._by_name: dict[str, Schedule] = {}
        #: By seq: live jobs that schedules have started.
        self.watched: dict[int, tuple[Schedule, ScheduleRun]] = {}
        self.payload_bytes = 0
        self._times = JobTimes()  # when each is due next

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Schedule]:
        return iter(self._by_id.values())

    def find(self, id_or_name: str) -> Schedule | None:
        """Return the schedule with this id, or else with this name."""
        return self._by_id.get(id_or_name) or self._by_name.get(id_or_name)

    def named(self, name: str) -> Schedule | None:
        """Return the schedule with this name."""
        return self._by_name.get(name)

    def put(self, schedule: Schedule) -> None:
        """Add a schedule."""
        self._by_id[schedule.spec.id] = self._by_name[schedule.spec.name] = schedule
        self.payload_bytes += len(schedule.spec.payload)
        self.refresh(schedule)

    def drop(self, schedule: Schedule) -> None:
        """Forget a schedule; its jobs go on without it."""
        del self._by_id[schedule.spec.id], self._by_name[schedule.spec.name]
        self.payload_bytes -= len(schedule.spec.payload)
        self.watched = {seq: run for seq, run in self.watched.items() if run[0] is not schedule}
        self._times.drop(schedule.spec.id)

    def refresh(self, schedule: Schedule) -> None:
        """Note when the schedule is due next: after every change of it."""
        self._times.drop(schedule.spec.id)
        at = schedule.wakes_at
        if at is not None and self._by_id.get(schedule.spec.id) is schedule:
            self._times.set(schedule.spec.id, at)

    def take(self, now: float) -> Schedule | None:
        """Return the schedule that is due longest, if any is due, and forget its time: ``refresh`` notes the next."""
        due = self._times.take(now, 1)
        return self._by_id[due[0]] if due else None

    def next_at(self) -> float | None:
        """Return when the next schedule is due, by the machine's clock."""
        return self._times.next_at()
