"""The engine's state, and the one place where a job changes state.

``Core.move`` keeps the indexes (lanes, leases, due times), the journal's rows and the event log in step, so the
command handlers beside this file only say what happens to which job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from aiqueue.engine.counters import Counters, encode_counters
from aiqueue.engine.dependencies import Links
from aiqueue.engine.due import WAITING, DueTimes, JobTimes, delayed_until, expires_after, expires_at, runs_at
from aiqueue.engine.effects import NOT_ENDED
from aiqueue.engine.fail_fast import FailFast
from aiqueue.engine.group import Group
from aiqueue.engine.groups import Groups
from aiqueue.engine.lanes import Lanes, Room
from aiqueue.engine.leases import Leases
from aiqueue.engine.policy import EnginePolicy, Route
from aiqueue.engine.publishing import EVENT_NAMES, Publisher, Turn
from aiqueue.engine.records import (
    AttemptRecord,
    Common,
    JobRecord,
    LaneKey,
    Listed,
    Progress,
    encode_attempt,
    encode_progress,
)
from aiqueue.engine.schedule_records import Schedules
from aiqueue.engine.states import MOVES, TERMINAL, JobState
from aiqueue.protocol import Failure, JobHeader

_NOWHERE = Route(pool="")  # a provider that no pool serves: its jobs wait until one does

HELD = frozenset({JobState.PROCESSING, JobState.CANCELLING})  #: a worker has the lease
_MANY = 10_000
_NOT_YET = frozenset({JobState.SCHEDULED, JobState.BLOCKED})


class IllegalMove(RuntimeError):
    """A handler asked for a move that the table does not have: a bug."""


class Core(Publisher):
    """Live jobs and their indexes."""

    def __init__(self, policy: EnginePolicy, counters: Counters) -> None:
        super().__init__(policy, counters)
        self.live: dict[str, JobRecord] = {}
        self.lanes = Lanes(tuple(ms / 1e3 for ms in policy.sla_ms), policy.ageing)
        self.groups = Groups(self.lanes, levels=len(policy.sla_ms))
        self.links = Links()
        self.leases = Leases(policy.lease_s, policy.most_passes)
        self.due = DueTimes()
        self.deadlines = JobTimes()  #: to be started by then, by the queue's clock
        self.start_by = JobTimes()  #: the same, by the machine's clock
        self.appointments = JobTimes()  #: not before, by the machine's clock; of jobs that never ran
        self._timed: set[str] = set()  # live jobs that had a time of these three: most have none
        self.schedules = Schedules()
        self.lists: deque[Listed] = deque()  #: accepted whole: jobs that have yet to become ready
        self.quarantine: dict[str, str] = {}  #: by pool, the worker that runs suspects, or is emptied for them
        self.isolated: set[str] = set()  #: workers that were given suspects, also those that want nothing more by now
        self.fail_fast = FailFast()
        self.refusals: dict[str, int] = {}  #: 429s waited out, of the live jobs that met any
        self.levels = frozenset(range(len(policy.sla_ms)))
        self.waiting = [0] * len(policy.sla_ms)  #: jobs that nobody runs, by level
        self.blocked = 0  #: those of them that wait for other jobs, or for their batch to be sealed
        self.open_batches: dict[str, int] = {}  #: batch id -> jobs that have not ended
        self._lane_keys: dict[tuple[str, str], LaneKey] = {}
        self._interned: dict[object, object] = {}

    @property
    def pending(self) -> bool:
        """Whether something has begun that the next ticks go on with."""
        links, groups = self.links, self.groups
        unheard = links.freed or links.lost
        return bool(unheard or groups.stopping or groups.sealing or self.lists or self.fail_fast.pending)

    def common(self, header: JobHeader) -> Common:
        """Return what the jobs of ``header`` have in common; strings that many share are stored once."""
        intern = self._interned.setdefault
        delayed = header.delay_ms or header.run_at
        not_before = delayed_until(header) if delayed else 0.0
        return Common(
            self._lane_key(header.provider, header.model),
            intern(header.type, header.type),  # type: ignore[arg-type]  # a dict of itself keeps the type
            header.level,
            intern(header.owner, header.owner),  # type: ignore[arg-type]
            intern(header.batch_id, header.batch_id),  # type: ignore[arg-type]
            header.max_retries,
            intern(header.timeout_ms, header.timeout_ms),  # type: ignore[arg-type]
            header.created_at,
            max(header.created_at, not_before, runs_at(header) - self.ahead_s) if delayed else header.created_at,
            not_before,
        )

    def record(self, seq: int, job_id: str, header: JobHeader, common: Common | None = None) -> JobRecord:
        """Return a new live job; ``common``, if the caller has it already."""
        job = JobRecord(seq, job_id, *(common or self.common(header)))
        if header.expires_at or header.expires_in_ms or header.run_at or header.fail_fast:
            self.note_times(job, header)
        self.live[job_id] = job
        if job.batch_id:
            self.open_batches[job.batch_id] = self.open_batches.get(job.batch_id, 0) + 1
        return job

    def note_times(self, job: JobRecord, header: JobHeader) -> None:
        """Note when a new job may start, when it must, and that it fails where it would wait for a gate."""
        if header.expires_at or header.expires_in_ms or header.run_at:
            self._set_times(job.id, header)
        if header.fail_fast:
            self.fail_fast.add(job)

    def record_all(self, jobs: dict[str, JobRecord], levels: Mapping[int, int], batches: Mapping[str, int]) -> None:
        """Take new jobs, made beforehand and BLOCKED, and give them seqs without gaps. The mappings count them."""
        for seq, job in enumerate(jobs.values(), start=self.counters.next_seq):
            job.seq = seq
        self.counters.next_seq += len(jobs)
        self.counters.accepted += len(jobs)
        self.live.update(jobs)
        for batch_id, count in batches.items():
            self.open_batches[batch_id] = self.open_batches.get(batch_id, 0) + count
        self.blocked += len(jobs)
        for level, count in levels.items():
            self.waiting[level] += count

    def admit(self, job: JobRecord, state: JobState, *, now: float) -> None:
        """Put a job where its state says: on acceptance, and on loading it from the journal."""
        job.state = state
        if job.id in self._timed and state not in _NOT_YET:
            self.appointments.drop(job.id)
        if job.batch_id:
            self.groups.joined(job)
        if state in WAITING:
            self._enter_waiting(job)
        elif state in HELD:
            self.gates.of(job.lane, now=now).in_flight += 1

    def unblock(self, turn: Turn, job: JobRecord) -> None:
        """Let a job run that was BLOCKED. It needs no row: after a restart it is found to wait for nothing."""
        self.waiting[job.level] -= 1
        self.blocked -= 1
        if not self.appointments.is_after(job.id, turn.now + self.ahead_s):
            self.appointments.drop(job.id)
        early = job.run_at > turn.now or job.id in self.appointments
        job.state = JobState.SCHEDULED if early else JobState.QUEUED
        self._enter_waiting(job)
        if job.state is JobState.SCHEDULED:
            self.write(turn, job)

    def is_late(self, job_id: str, now: float) -> bool:
        """Return True if the job was to be started by now."""
        return self.deadlines.is_over(job_id, now) or self.start_by.is_over(job_id, now + self.ahead_s)

    def any_late(self, now: float) -> bool:
        """Return True if there is such a job."""
        return self.deadlines.any_over(now) or self.start_by.any_over(now + self.ahead_s)

    def is_early(self, job: JobRecord, now: float) -> bool:
        """Return True if the job waits for a time, or has waited for a date until now."""
        return job.run_at > now or job.id in self.appointments

    def unblock_all(self, group: Group, jobs: list[JobRecord]) -> None:
        """As ``unblock``, for many jobs of one batch that may start now: in half the time."""
        self.blocked -= len(jobs)
        queued = JobState.QUEUED
        for job in jobs:
            job.state = queued
        self.groups.hold_all(group, jobs)

    def forget(self, job: JobRecord) -> None:
        """Remove a job that waits, as if it had never been accepted."""
        if job.state is JobState.QUEUED and not self.groups.withdraw(job):
            self.lanes.discard(job)
        elif job.state is JobState.SCHEDULED:
            self._leave_due(job)
        self.blocked -= job.state is JobState.BLOCKED
        self.waiting[job.level] -= 1
        self.counters.accepted -= 1
        job.state = JobState.CANCELLED  # what entries of it in heaps go by
        self.refusals.pop(job.id, None)
        self._leave(job)
        self.links.ended(job)  # a job that needs it must not wait for ever

    def move(
        self, turn: Turn, job: JobRecord, target: JobState, *, failure: Failure | None = None, result: bytes = b""
    ) -> None:
        """Bring ``job`` to ``target``: indexes, rows and event."""
        source = job.state
        if target not in MOVES[source]:
            raise IllegalMove(f"job {job.id}: {source} -> {target}")
        if source is JobState.QUEUED and target is not JobState.PROCESSING:
            if not (job.batch_id and self.groups.withdraw(job)):
                self.lanes.discard(job)  # a claim has taken it out of its lane already
        elif source in HELD and target not in HELD:
            self.leases.release(job)
        elif source is JobState.SCHEDULED and target is not JobState.QUEUED:
            self._leave_due(job)
        if source in WAITING:
            self.waiting[job.level] -= 1
            self.blocked -= source is JobState.BLOCKED
        job.state = target
        if target in WAITING:
            self._enter_waiting(job)
        elif target in TERMINAL:
            self._end(turn, job)
        self.write(turn, job, failure, result)
        if target in TERMINAL:
            self.refusals.pop(job.id, None)
        if name := EVENT_NAMES.get(target):
            self.publish(turn, job, name, failure=failure, result=result)
        if job.batch_id and (batch := self.groups.moved(job, source, failure)):
            turn.rows.ends.append((batch, self.groups.ends_of(job.batch_id), job.seq))

    def started(self, job_id: str) -> None:
        """The job was started, or has ended: it can't be too late any more."""
        if job_id in self._timed:
            self.deadlines.drop(job_id)
            self.start_by.drop(job_id)

    def keep_attempt(self, turn: Turn, job: JobRecord, outcome: str, failure: Failure | None = None) -> None:
        """Write down an attempt that ended while its job goes on."""
        record = AttemptRecord(job.attempt, outcome, job.started_at, turn.now, job.worker_id, failure)
        turn.rows.attempts.append((job.seq, job.attempt, encode_attempt(record)))

    def room(self, now: float) -> Room:
        """Return the function that says how many jobs of a lane may start at ``now``."""
        return lambda lane: self.gates.of(lane, now=now).room(now)

    @property
    def ahead_s(self) -> float:
        """By how many seconds the machine's clock is ahead of the queue's."""
        return self.counters.clock.ahead_s

    def seal(self, turn: Turn) -> None:
        """Add the counters to the turn's rows, if it changed anything."""
        if self.links.freed or self.counters.cascades:
            self._note_cascades(turn)
        if turn.rows or turn.counted:
            self.counters.clock.now = turn.now
            turn.rows.counters = encode_counters(self.counters)

    def _note_cascades(self, turn: Turn) -> None:
        """Let the counters name the ended jobs whose ends have not had all their consequences: a restart goes on."""
        cascades = [(parent.id, parent.state.value) for parent, _ in self.links.freed]
        if cascades != self.counters.cascades:
            self.counters.cascades, turn.counted = cascades, True

    def forget_unused(self, now: float) -> None:
        """Let go of what was kept for models, clients and batches of the past, if it has become much."""
        self.lanes.prune()
        self.gates.prune(now)
        self.groups.prune()
        for kept in (self._lane_keys, self._interned):  # only savings: an equal one does as well
            if len(kept) > _MANY:
                kept.clear()

    def _enter_waiting(self, job: JobRecord) -> None:
        self.waiting[job.level] += 1
        if job.state is JobState.QUEUED:
            if not (job.batch_id and self.groups.hold(job)):
                self.lanes.push(job)
        elif job.state is JobState.SCHEDULED:
            if job.id not in self.appointments:
                self.due.push(job)
        else:
            self.blocked += 1

    def keep_appointment(self, turn: Turn, job: JobRecord) -> bool:
        """The date has come before which the job was not to run. Return True if nothing else delays it."""
        if job.state is not JobState.SCHEDULED:
            return False
        job.since = max(job.created_at, min(job.since, turn.now))  # later only if the clock was set meanwhile
        if job.run_at > turn.now:
            self.due.push(job)
            return False
        return True

    def _leave_due(self, job: JobRecord) -> None:
        if job.id not in self.appointments:  # those have no entry there
            self.due.leave()

    def _set_times(self, job_id: str, header: JobHeader) -> None:
        self._timed.add(job_id)
        for times, at in (
            (self.deadlines, expires_after(header)),
            (self.start_by, expires_at(header)),
            (self.appointments, runs_at(header)),
        ):
            if at:
                times.set(job_id, at)

    def _end(self, turn: Turn, job: JobRecord) -> None:
        self._leave(job)
        self.counters.count_end(job.state)
        if job.state is JobState.COMPLETED:
            self.counters.completed[job.level] += 1
            in_time = (turn.now - job.since) * 1e3 <= self.policy.sla_ms[job.level]
            self.counters.sla_met[job.level] += in_time
        if self.links.needs:
            self.links.ended(job)

    def _leave(self, job: JobRecord) -> None:
        del self.live[job.id]
        if job.id in self._timed:
            self.started(job.id)
            self.appointments.drop(job.id)
            self._timed.discard(job.id)
        self.fail_fast.discard(job.id)
        if job.batch_id:
            self.open_batches[job.batch_id] -= 1
            if not self.open_batches[job.batch_id]:
                del self.open_batches[job.batch_id]
                self._interned.pop(job.batch_id, None)

    def write(self, turn: Turn, job: JobRecord, failure: Failure | None = None, result: bytes = b"") -> None:
        """Add the row of the job's changing part."""
        progress = Progress(
            job.attempt,
            job.retries,
            job.crashes,
            job.worker_id,
            job.started_at,
            turn.now if job.state in TERMINAL else 0.0,
            job.run_at,
            failure,
            self.refusals.get(job.id, 0),
            job.blamed,
            job.lane.company,
        )
        ended_at = progress.finished_at or NOT_ENDED
        turn.rows.states.append((job.seq, job.state._value_, encode_progress(progress), ended_at))
        if result:
            turn.rows.results.append((job.seq, result))

    def _lane_key(self, provider: str, model: str) -> LaneKey:
        key = self._lane_keys.get((provider, model))
        if key is None:
            route = self.policy.routes.get(provider, _NOWHERE)
            key = self._lane_keys[provider, model] = LaneKey(route.pool, provider, model, route.credential)
        return key
