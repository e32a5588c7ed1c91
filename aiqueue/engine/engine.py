"""The one door to the queue's state: ``handle(command, now=…)`` returns what is to be done about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from aiqueue.engine import admission, aside, batches, cancellation, drops, schedules, soundness, suspects
from aiqueue.engine.batch_records import decode_stored_batch
from aiqueue.engine.commands import (
    AddSchedule,
    Announce,
    Cancel,
    ChangeSchedule,
    Claim,
    Command,
    EndAside,
    Exchange,
    LoseWorker,
    Report,
    Retry,
    RunSchedule,
    Steer,
    Submit,
    Tick,
)
from aiqueue.engine.core import HELD, Core
from aiqueue.engine.counters import SAME_CLOCK_S, ClockMark, Counters, decode_counters
from aiqueue.engine.due import JobTimes
from aiqueue.engine.effects import Effects
from aiqueue.engine.exchange import claim, exchange, lose_worker, report, restore_lease, tick
from aiqueue.engine.gates import GateKey, StoredGate, decode_gate
from aiqueue.engine.policy import EnginePolicy, GatePolicy
from aiqueue.engine.prepared import Prepared
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import JobRecord, LaneKey, Progress, StoredRow, decode_progress, failure_to_come
from aiqueue.engine.retry import MAX_ASKED_S
from aiqueue.engine.schedules import restore as restore_schedule
from aiqueue.engine.states import JobState
from aiqueue.protocol import JobHeader, SubmitGroup, decode_header, decode_spec


def _tick(core: Core, turn: Turn, command: Tick) -> None:
    if abs(command.ahead_s - core.ahead_s) > SAME_CLOCK_S:  # somebody set the machine's clock
        core.counters.clock.ahead_s, turn.counted = command.ahead_s, True
    tick(core, turn, command)
    schedules.fire_due(core, turn)


_HANDLERS: Mapping[type, Callable[[Core, Turn, Any], Any]] = {
    Submit: admission.submit,
    Exchange: exchange,
    Report: report,
    Claim: claim,
    Cancel: cancellation.cancel,
    LoseWorker: lose_worker,
    Tick: _tick,
    AddSchedule: schedules.add,
    ChangeSchedule: schedules.change,
    RunSchedule: schedules.run_now,
    Announce: lambda core, turn, command: core.publish_announced(turn, command.name, command.data),
    Steer: batches.steer,
    Retry: batches.retry,
    EndAside: aside.end_aside,
}

BatchRow = tuple[int, bytes, bytes]  #: number, BatchSpec, StoredBatch
StoredPart = tuple[int, int, int]  #: number of a batch, first seq, count
StoredSchedule = tuple[str, bytes, bytes]  #: id, ScheduleSpec, ScheduleState


class QueueEngine:
    """All live jobs and every decision about them. Deterministic: time and draws come in as values."""

    def __init__(self, policy: EnginePolicy, counters: Counters | None = None) -> None:
        self.core = Core(policy, counters or Counters())
        self.aside = EndAside([])  #: jobs of the journal that were not loaded

    @classmethod
    def load(
        cls,
        policy: EnginePolicy,
        *,
        counters: bytes,
        rows: Iterable[StoredRow],
        gates: Iterable[tuple[str, bytes]] = (),
        schedules: Iterable[StoredSchedule] = (),
        batches: Iterable[BatchRow] = (),
        parts: Iterable[StoredPart] = (),
        now: float,
        without: Collection[str] = (),
        clock: ClockMark | None = None,
        last_seq: int = 0,
        last_batch: int = 0,
    ) -> QueueEngine:
        """Return the engine as it was after the commit that wrote all this.

        ``rows`` and ``batches``: those that have not ended; ``parts``: of these batches, by first seq. Leases start
        anew at ``now``: their workers may well be alive and will report. The rows of jobs that it is to be ``without``,
        and of others that need them, are in ``aside``, for an EndAside. ``clock``: where it stands now.
        Raises ValueError for a row that can't be decoded or has a value that no job can have.
        """
        engine = cls(policy, decode_counters(counters) if counters else None)
        engine.core.counters.clock = clock or engine.core.counters.clock
        engine.core.counters.begin_after(last_seq, last_batch)
        left_out: list[StoredRow] = []
        engine.aside = EndAside(left_out)
        for number, spec, stored_batch in batches:
            stored = decode_stored_batch(stored_batch)
            stored.ended_at = 0.0  # if it says otherwise it is damaged, and would be written as ended
            engine.core.groups.add(number, decode_spec(spec), stored, now=now)
        engine.core.groups.restore_parts(parts)
        unheard = {job_id: JobState(state) for job_id, state in engine.core.counters.cascades}
        for row in aside.without(rows, without, left_out) if without else rows:
            engine._restore(row, unheard, now)
        drops.forget_damaged_parts(engine.core)
        engine.core.links.restore_freed(unheard)
        for key, stored_gate in gates:
            gate = engine.core.gates.at(GateKey.from_json(key), now=now)
            gate.restore(decode_gate(stored_gate), now=now)
            if now < gate.closed_until:
                engine.core.fail_fast.close(gate, gate.reason)
        for found in schedules:
            restore_schedule(engine.core, found)
        return engine

    def handle(self, command: Command, *, now: float) -> Effects:
        """Carry out ``command`` at ``now`` (seconds since the epoch)."""
        core = self.core
        turn = Turn(now, core.policy.most_at_once)
        turn.reply = _HANDLERS[type(command)](core, turn, command)
        if core.links.freed or core.groups.tripped or core.links.lost:
            batches.settle(core, turn)
        if core.groups.dirty or core.groups.finished:
            batches.write(core, turn)
        if core.schedules.watched:
            schedules.note_ends(core, turn)
        core.seal(turn)
        return turn

    def prepare(self, group: SubmitGroup) -> Prepared:
        """Return what makes a large group ready for its Submit."""
        return Prepared(self.core, group)

    def knows(self, job_id: str) -> bool:
        """Tell whether a job of this id has been accepted and has not ended."""
        return job_id in self.core.live

    def ready(self, pool: str, *, now: float) -> int:
        """Return how many jobs a worker of ``pool`` could claim now."""
        return self.core.lanes.queued(pool, self.core.room(now)) + suspects.claimable(self.core, pool, now=now)

    def has_overtaken(self, worker_id: str, number: int) -> bool:
        """Return True if this call of the worker, or a later one, has arrived before."""
        worker = self.core.leases.find(worker_id)
        return worker is not None and worker.has_overtaken(number)

    def is_overtaken(self, worker_id: str, number: int) -> bool:
        """Return True if a later call of the worker than this one, which has arrived, has arrived too."""
        worker = self.core.leases.find(worker_id)
        return worker is not None and worker.is_overtaken(number)

    def free_slots(self, worker_id: str) -> int:
        """Return how many more jobs the worker may be given."""
        worker = self.core.leases.find(worker_id)
        return worker.free if worker else 0

    def has_affinity(self, pool: str) -> bool:
        """Tell whether workers of ``pool`` hold one of several models at a time."""
        return pool in self.core.policy.most_passes

    def by_model(self, worker_ids: Iterable[str]) -> dict[str, list[str]]:
        """Return these workers of such a pool by the model that they were given jobs for last."""
        found: dict[str, list[str]] = {}
        for worker_id in worker_ids:
            worker = self.core.leases.find(worker_id)
            if worker and worker.affinity:
                found.setdefault(worker.affinity.model, []).append(worker_id)
        return found

    def ready_alike(self, pool: str, model: str, *, now: float) -> int:
        """Return how many jobs for ``model`` a worker of ``pool`` could claim now."""
        return self.core.lanes.queued_alike(pool, model, self.core.room(now))

    def has_news_for(self, worker_id: str) -> bool:
        """Tell whether a worker that waits is to be told to stop something."""
        worker = self.core.leases.find(worker_id)
        return worker is not None and bool(worker.cancels)

    def next_due(self, *, now: float) -> float | None:
        """Return when time alone next changes something: a job comes due or expires, a gate opens, a tick."""
        core = self.core
        if core.pending:
            return now
        times = [core.due.next_at(), core.deadlines.next_at(), core.gates.next_at(now)]
        dates = (core.appointments.next_at(), core.start_by.next_at(), core.schedules.next_at())
        times += [at - core.ahead_s for at in dates if at is not None]
        return min((at for at in times if at is not None), default=None)

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that a restart must bring back, for comparison."""
        core = self.core
        return {
            "live": {job_id: msgspec.structs.asdict(job) for job_id, job in core.live.items()},
            "order": self._order(),
            "queued": sum(sum(lane.queued) for lane in core.lanes) + sum(map(sum, core.groups.held.values())),
            "due": sorted(job.id for job in core.due.jobs()),
            "held": {worker.id: set(worker.held) for worker in core.leases if worker.held},
            "counters": msgspec.structs.asdict(core.counters),
            "batches": dict(core.open_batches),
            "groups": core.groups.fingerprint(),
            "links": core.links.fingerprint(),
            "blocked": core.blocked,
            "waiting": list(core.waiting),
            "fail_fast": sorted(core.fail_fast),
            "deadlines": (self._times(core.deadlines), self._times(core.start_by)),
            "appointments": self._times(core.appointments),
            "schedules": {schedule.spec.id: schedule.facts() for schedule in core.schedules},
            "refusals": dict(core.refusals),
            "gates": {gate.key: stored for gate in core.gates if (stored := gate.stored()) != StoredGate()},
            "calls": {gate.key: gate.in_flight for gate in core.gates if gate.in_flight},
        }

    def _times(self, times: JobTimes) -> dict[str, float]:
        """Return the times of jobs, but for those of batches that are being dropped: theirs pass without a trace."""
        live, groups = self.core.live, self.core.groups
        return {job_id: at for job_id, at in times.times().items() if not groups.drops(live[job_id])}

    def _order(self) -> dict[LaneKey, list[str]]:
        """Return the ready jobs of each lane in the order of service, those that batches hold among them."""
        ready: dict[LaneKey, list[JobRecord]] = {}
        for job in [*(job for lane in self.core.lanes for job in lane.in_order()), *self.core.groups.held_in_order()]:
            ready.setdefault(job.lane, []).append(job)
        return {
            lane: [job.id for job in sorted(jobs, key=lambda job: (job.level, job.seq))] for lane, jobs in ready.items()
        }

    def _restore(self, row: StoredRow, unheard: Mapping[str, JobState], now: float) -> None:
        seq, job_id, header, state, progress = row
        soundness.check_id(job_id)
        decoded = decode_header(header)
        soundness.check_header(job_id, decoded, len(self.core.levels))
        decoded.created_at = min(decoded.created_at, now)  # later only if it was accepted under another clock
        job = self.core.record(seq, job_id, decoded)
        if decoded.needs or job.batch_id:
            self._restore_waits(job, decoded, unheard, started=bool(progress))
        if progress:
            stored = decode_progress(progress)
            soundness.check_progress(job_id, state, stored)
            _put_progress(job, state, stored)
            if decoded.needs and (failure := failure_to_come(state, stored)):
                self.core.links.lose(job_id, failure)
                job.state = JobState.BLOCKED
            if stored.attempt:
                job.run_at = min(stored.run_at, now + self._longest_wait_s(job))
                self.core.started(job_id)
                self.core.appointments.drop(job_id)
            if stored.refusals:
                self.core.refusals[job_id] = stored.refusals
        else:
            soundness.check_bare_state(job_id, state)
            if job.state is JobState.QUEUED and self._is_early(job, now):
                job.state = JobState.SCHEDULED  # of a sealed batch, and its turn to become ready had not come
        self.core.admit(job, job.state, now=now)
        if job.state in HELD:
            restore_lease(self.core, job, now=now)

    def _is_early(self, job: JobRecord, now: float) -> bool:
        return job.run_at > now or self.core.appointments.is_after(job.id, now + self.core.ahead_s)

    def _longest_wait_s(self, job: JobRecord) -> float:
        """Return how long a job that failed waits at most: one that waits longer was written under another clock."""
        policy = self.core.policy
        gate = policy.gates.get(job.lane.provider, GatePolicy())
        return max(policy.retry.cap_s, MAX_ASKED_S, gate.breaker_open_s) + policy.retry.base_s

    def _restore_waits(
        self, job: JobRecord, header: JobHeader, unheard: Mapping[str, JobState], *, started: bool
    ) -> None:
        """Find what a job waits for. One that has a row of its own waited for nothing any more."""
        core = self.core
        waits = bool(header.needs) and core.links.add(job.id, header.needs, header.on_error, core.live)
        if header.needs and unheard and not started:
            core.links.hear(job.id, unheard)
            waits = core.links.waits(job.id)
        group = core.groups.live.get(job.batch_id)
        if not started and (waits or (group is not None and group.stored.phase == "open")):
            job.state = JobState.BLOCKED


def _put_progress(job: JobRecord, state: str, stored: Progress) -> None:
    job.state = JobState(state)
    job.attempt, job.retries, job.crashes = stored.attempt, stored.retries, stored.crashes
    job.worker_id, job.started_at = stored.worker_id, stored.started_at
    if job.state is not JobState.SCHEDULED:
        job.run_at = stored.run_at
    job.blamed = stored.blamed
    if stored.company:
        job.lane = suspects.apart(job.lane, stored.company)
