"""Schedules: each tick of a cron line becomes one ordinary job, or is written down as skipped or missed.

A tick is dealt with in one turn: the job's row and the schedule's new state share a commit, so a restart finds both or
neither. The job's id follows from the schedule's id and the tick's time, so that no tick can have two.
"""

from __future__ import annotations

import msgspec

from aiqueue.engine import admission, cancellation
from aiqueue.engine.commands import AddSchedule, Cancel, ChangeSchedule, RunSchedule, Submit
from aiqueue.engine.core import Core
from aiqueue.engine.effects import KeyRow
from aiqueue.engine.publishing import Turn
from aiqueue.engine.schedule_records import (
    CATCH_UPS,
    FIRED,
    KEPT_RUNS,
    MANUAL,
    MISSED,
    OVERLAPS,
    REFUSED,
    SKIPPED,
    Schedule,
    ScheduleRun,
    ScheduleSpec,
    ScheduleState,
    decode_spec,
    decode_state,
    encode_spec,
    encode_state,
)
from aiqueue.engine.schedule_ticks import due_ticks, fire_at, move_on, tick_job_id
from aiqueue.engine.states import TERMINAL
from aiqueue.errors import QueueFull, ScheduleExists, ScheduleNotFound, ValidationError
from aiqueue.protocol import Refusal, Submission, SubmitGroup

MAX_SCHEDULES = 1_000
MAX_PAYLOAD_BYTES = 64 * 2**20  #: of all schedules together: they are kept in memory
MAX_WAITING = 100  #: ticks of one schedule that are caught up, or wait for the run before them
GRACE_S = 60.0  #: a tick that is dealt with later than this was missed
_WORK = 10  # what a schedule and its job cost beside the questions about its line, in such questions


def add(core: Core, turn: Turn, command: AddSchedule) -> Refusal | str:
    """Carry out an AddSchedule."""
    spec, schedules = command.spec, core.schedules
    known = schedules.find(spec.id) or schedules.named(spec.name)
    if known is not None:  # asked again after a lost answer, or by a program that was started again
        if not _is_same(known.spec, spec):
            return Refusal(ScheduleExists.kind, known.spec.name)
        _keep_key(turn, command, known.spec.id)
        return known.spec.id
    now = turn.now + core.ahead_s
    schedule = Schedule(msgspec.structs.replace(spec, created_at=now), ScheduleState(enabled=spec.enabled))
    if problem := schedule.problem or _refused(core, spec):
        return Refusal(ValidationError.kind, problem)
    move_on(schedule, now)
    if not schedule.state.next_tick:
        return Refusal(ValidationError.kind, f"cron_expression: {spec.expression!r} never fires")
    if not spec.enabled:
        _pause(schedule)
    schedules.put(schedule)
    turn.rows.schedules.append((spec.id, encode_spec(schedule.spec), encode_state(schedule.state)))
    _keep_key(turn, command, spec.id)
    return spec.id


def _keep_key(turn: Turn, command: AddSchedule, schedule_id: str) -> None:
    if command.key:
        turn.rows.keys.append(KeyRow(command.key, schedule_id, command.digest, turn.now))


def _refused(core: Core, spec: ScheduleSpec) -> str:
    """Return why a schedule can't be taken; empty if it can."""
    if spec.header.level not in core.levels:
        return f"level: must be 0 to {len(core.levels) - 1}"
    if spec.overlap not in OVERLAPS or spec.catch_up not in CATCH_UPS or spec.jitter_ms < 0:
        return f"overlap, catch_up or jitter: no such rule: {spec.overlap}, {spec.catch_up}, {spec.jitter_ms}"
    if spec.overlap == "cancel_running" and spec.catch_up == "all":
        return "catch_up: all runs would be cancelled but the last; with overlap=cancel_running it can be last or none"
    if len(core.schedules) >= MAX_SCHEDULES:
        return f"schedules: there are {MAX_SCHEDULES}, as many as there may be; remove some"
    if core.schedules.payload_bytes + len(spec.payload) > MAX_PAYLOAD_BYTES:
        return f"payload: the schedules' payloads would have more than {MAX_PAYLOAD_BYTES} bytes together"
    return ""


def _is_same(known: ScheduleSpec, asked: ScheduleSpec) -> bool:
    """Tell whether two specs say the same, whoever sent them, under which id, and when."""
    header = msgspec.structs.replace(asked.header, owner=known.header.owner)
    rest = {"id": known.id, "created_at": known.created_at, "header": header, "enabled": known.enabled}
    return msgspec.structs.replace(asked, **rest) == known


def change(core: Core, turn: Turn, command: ChangeSchedule) -> Refusal | str:
    """Carry out a ChangeSchedule."""
    schedule = core.schedules.find(command.schedule)
    if schedule is None:
        return Refusal(ScheduleNotFound.kind, command.schedule)
    if command.action == "remove":
        core.schedules.drop(schedule)
        turn.rows.schedules.append((schedule.spec.id, b"", b""))
        return schedule.spec.id
    if command.action == "pause":
        _pause(schedule)
    elif schedule.problem:
        return Refusal(ValidationError.kind, schedule.problem)
    elif not schedule.state.enabled:
        schedule.state.enabled, schedule.state.problem = True, ""
        move_on(schedule, max(schedule.state.last_tick, turn.now + core.ahead_s))
    _save(core, turn, schedule)
    core.schedules.refresh(schedule)
    return schedule.spec.id


def run_now(core: Core, turn: Turn, command: RunSchedule) -> Refusal | str:
    """Carry out a RunSchedule: beside the cron line, whatever runs already, also of a paused schedule."""
    schedule = core.schedules.find(command.schedule)
    if schedule is None:
        return Refusal(ScheduleNotFound.kind, command.schedule)
    if any(run.job_id == command.job_id for run in schedule.state.runs):  # asked again after a lost answer
        return schedule.spec.id
    if len(schedule.running) >= MAX_WAITING:
        return Refusal(QueueFull.kind, f"{len(schedule.running)} runs of this schedule have not ended; try later")
    now = turn.now + core.ahead_s
    refusal = _start(core, turn, schedule, ScheduleRun(now, now, MANUAL, command.job_id))
    if refusal is not None:
        return refusal
    _save(core, turn, schedule)
    core.schedules.refresh(schedule)
    return schedule.spec.id


def fire_due(core: Core, turn: Turn) -> None:
    """Deal with ticks whose time has come, those that wait longest first.

    A turn takes schedules until it has done as much work as it may, and always one: the next turn goes on. What one
    schedule costs has a limit of its own, however many ticks have passed.
    """
    schedules, now, left = core.schedules, turn.now + core.ahead_s, core.policy.most_at_once
    while left > 0 and (schedule := schedules.take(now)) is not None:
        left -= _WORK + len(schedule.running)
        before = schedule.cron.asked if schedule.cron else 0
        _take_ticks(core, turn, schedule, now)
        _start_waiting(core, turn, schedule, now)
        _save(core, turn, schedule)
        schedules.refresh(schedule)
        left -= schedule.cron.asked - before if schedule.cron else 0


def note_ends(core: Core, turn: Turn) -> None:
    """Write down the ends of scheduled jobs among the rows of this turn. Called only while there are such jobs."""
    watched = core.schedules.watched
    ended = [(seq, state) for seq, state, _, _ in turn.rows.states if seq in watched and state in TERMINAL]
    changed: dict[str, Schedule] = {}
    for seq, state in ended:
        schedule, run = watched.pop(seq)
        run.status, run.ended_at = str(state), turn.now + core.ahead_s
        schedule.running.pop(run.job_id, None)
        changed[schedule.spec.id] = schedule
    for schedule in changed.values():
        _save(core, turn, schedule)
        core.schedules.refresh(schedule)  # what waited for the run is due at once


def restore(core: Core, rows: tuple[str, bytes, bytes]) -> None:
    """Put back a schedule as the journal has it, after the jobs."""
    _, definition, stored = rows
    schedule = Schedule(decode_spec(definition), decode_state(stored))
    for run in schedule.state.runs:
        job = core.live.get(run.job_id)
        if job is not None:
            schedule.running[run.job_id] = run
            core.schedules.watched[job.seq] = schedule, run
    core.schedules.put(schedule)


# --- ticks -----------------------------------------------------------------------------------------------------------


def _take_ticks(core: Core, turn: Turn, schedule: Schedule, now: float) -> None:
    """Decide about the ticks that are due: which ones get a job, which were missed or are skipped."""
    state, spec = schedule.state, schedule.spec
    if not state.next_tick or state.fire_at > now:
        return
    if schedule.cron is None:
        _pause(schedule)
        state.problem = schedule.problem
        return
    first, due = state.next_tick, due_ticks(schedule, now, MAX_WAITING)
    late = now - fire_at(schedule, due[-1]) > GRACE_S
    move_on(schedule, due[-1])
    if spec.catch_up == "all" and (late or len(due) > 1):
        if len(due) > MAX_WAITING:
            reason = f"more were missed than the {MAX_WAITING} that are caught up"
            _note(schedule, ScheduleRun(first, now, MISSED, reason=reason))
        state.waiting += due[-MAX_WAITING:]
        _shorten(schedule, now)
        return
    missed = due if late and spec.catch_up == "none" else due[:-1]
    if missed:
        reason = "their time had passed when the queue could act"
        _note(schedule, ScheduleRun(first, now, MISSED, count=len(missed), reason=reason))
    if len(missed) < len(due):
        _take(core, turn, schedule, due[-1], now)


def _take(core: Core, turn: Turn, schedule: Schedule, tick: float, now: float) -> None:
    """Let a tick have its job, by the rule for a run that has not ended."""
    state, rule = schedule.state, schedule.spec.overlap
    if rule == "skip" and (schedule.running or state.waiting):
        _note(schedule, ScheduleRun(tick, now, SKIPPED, reason="the run before it had not ended"))
        return
    if rule == "cancel_running":
        for older in state.waiting:
            _note(schedule, ScheduleRun(older, now, SKIPPED, reason="a later tick came before there was room"))
        state.waiting = []
        cancellation.cancel(core, turn, Cancel(list(schedule.running)))
    state.waiting.append(tick)
    _shorten(schedule, now)


def _shorten(schedule: Schedule, now: float) -> None:
    waiting = schedule.state.waiting
    for tick in waiting[:-MAX_WAITING]:
        _note(schedule, ScheduleRun(tick, now, SKIPPED, reason=f"{MAX_WAITING} later ticks wait already"))
    schedule.state.waiting = waiting[-MAX_WAITING:]


def _start_waiting(core: Core, turn: Turn, schedule: Schedule, now: float) -> None:
    """Start the next job, unless it is to wait for the run before it or for room in the queue."""
    state = schedule.state
    while state.enabled and state.waiting and schedule.hold_until <= now:
        if schedule.running and schedule.spec.overlap != "cancel_running":
            return
        tick = state.waiting[0]
        refusal = _start(core, turn, schedule, ScheduleRun(tick, now, FIRED, tick_job_id(schedule.spec.id, tick)))
        if refusal is not None and refusal.kind == QueueFull.kind:
            schedule.hold_until = now + refusal.retry_after_s
            return
        if refusal is not None:
            _note(schedule, ScheduleRun(tick, now, REFUSED, reason=refusal.message))
        state.waiting = state.waiting[1:]


def _start(core: Core, turn: Turn, schedule: Schedule, run: ScheduleRun) -> Refusal | None:
    """Submit the job of ``run`` and keep watch over it; return why it was refused, if it was."""
    spec = schedule.spec
    header = msgspec.structs.replace(spec.header, owner=spec.id)
    group = SubmitGroup([Submission(run.job_id, header, spec.payload)])
    (refusal,) = admission.submit(core, turn, Submit([group]))
    if refusal is not None:
        return refusal
    seq = turn.rows.jobs[-1][0]
    schedule.running[run.job_id] = run
    core.schedules.watched[seq] = schedule, run
    schedule.state.fired += 1
    _note(schedule, run)
    return None


def _pause(schedule: Schedule) -> None:
    state = schedule.state
    state.enabled, state.next_tick, state.fire_at = False, 0.0, 0.0


def _note(schedule: Schedule, run: ScheduleRun) -> None:
    """Add to the history; ticks skipped one after the other for one reason are one entry."""
    runs = schedule.state.runs
    if run.outcome == SKIPPED and runs and (runs[-1].outcome, runs[-1].reason) == (SKIPPED, run.reason):
        runs[-1].count, runs[-1].at = runs[-1].count + 1, run.at
        return
    runs.append(run)
    if len(runs) > KEPT_RUNS:  # a run that has not ended is never forgotten: others wait for it
        oldest = next((old for old in runs if old.job_id not in schedule.running), None)
        if oldest is not None:
            runs.remove(oldest)


def _save(core: Core, turn: Turn, schedule: Schedule) -> None:
    if core.schedules.find(schedule.spec.id) is schedule:  # and was not removed meanwhile
        turn.rows.schedules.append((schedule.spec.id, b"", encode_state(schedule.state)))
