"""What workers report, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence

from aiqueue.engine import batches, lists, suspects
from aiqueue.engine.cancellation import expire, fail_closed
from aiqueue.engine.claims import give
from aiqueue.engine.commands import Claim, Exchange, LoseWorker, Report, Tick
from aiqueue.engine.core import Core
from aiqueue.engine.effects import Granted
from aiqueue.engine.gates import GateChange, asks_to_wait
from aiqueue.engine.leases import Worker
from aiqueue.engine.publishing import RETRIED, Turn
from aiqueue.engine.records import JobRecord
from aiqueue.engine.retry import after_crash, after_failure
from aiqueue.engine.states import JobState
from aiqueue.errors import JobCancelled, PayloadUnreadable, PoisonJob, WorkerLost
from aiqueue.protocol import Failure, Outcome


def exchange(core: Core, turn: Turn, command: Exchange) -> Granted:
    """Carry out an Exchange: outcomes first, so that the slots they free are filled again."""
    worker = core.leases.heard(command.worker_id, command.pool, now=turn.now)
    overtaken = worker.has_overtaken(command.number)
    if not overtaken:
        worker.slots, worker.urgent_slots, worker.most = command.slots, command.urgent_slots, command.most
        worker.calls = command.number or worker.calls
    _report_all(core, turn, worker, command.outcomes, command.draw)
    if overtaken:
        return Granted()
    again = [] if command.running is None else _agree(worker, set(command.running))
    return _grant(core, turn, worker, again=again) if command.claims else _told(core, worker, again)


def report(core: Core, turn: Turn, command: Report) -> Granted:
    """Carry out a Report."""
    worker = core.leases.find(command.worker_id)
    if worker is None:
        core.counters.stale_outcomes += len(command.outcomes)
        turn.counted = turn.counted or bool(command.outcomes)
        return Granted()
    core.leases.prolong(worker, now=turn.now)
    _report_all(core, turn, worker, command.outcomes, command.draw)
    return Granted() if command.running is None else _told(core, worker, _agree(worker, set(command.running)))


def _report_all(core: Core, turn: Turn, worker: Worker, outcomes: Sequence[Outcome], draw: float) -> None:
    for outcome in outcomes:
        _report(core, turn, worker, outcome, draw)
    if core.links.freed:  # what waited for these jobs may be claimed in this very call
        batches.settle(core, turn)


def claim(core: Core, turn: Turn, command: Claim) -> Granted:
    """Carry out a Claim; nothing for a worker that is not known (any more)."""
    worker = core.leases.find(command.worker_id)
    return Granted() if worker is None else _grant(core, turn, worker, most=command.most)


def _grant(
    core: Core, turn: Turn, worker: Worker, *, again: Sequence[JobRecord] = (), most: int | None = None
) -> Granted:
    _expire(core, turn)  # also when the tick is late: what was to start by now must not start after it
    room = min(worker.free, worker.most or worker.free)
    claims = suspects.claim(core, turn, worker, room) if suspects.in_quarantine(core) else None
    if claims is None:
        claims = _claim(core, turn, worker, room if most is None else min(room, most))
    return _told(core, worker, [*again, *claims])


def _told(core: Core, worker: Worker, claims: list[JobRecord]) -> Granted:
    granted = Granted(claims, worker.cancels)
    worker.cancels = []
    if core.links.needs:
        granted.needs = core.links.needs_of(granted.claims)
    return granted


def _claim(core: Core, turn: Turn, worker: Worker, room: int) -> list[JobRecord]:
    if not worker.urgent_slots:
        return give(core, turn, worker, room)
    claimed = give(core, turn, worker, min(room, worker.free_for_all))
    return claimed + give(core, turn, worker, room - len(claimed), levels=1)


def _report(core: Core, turn: Turn, worker: Worker, outcome: Outcome, draw: float) -> None:
    job = worker.held.get(outcome.job_id)
    if job is None or job.attempt != outcome.attempt:
        turn.counted = True
        core.counters.stale_outcomes += 1  # too late: the lease was taken away; or sent twice
        return
    probe_failed = _tell_gate(core, turn, job, outcome)
    if outcome.failure is None and not outcome.cancelled:
        core.move(turn, job, JobState.COMPLETED, result=outcome.result)
    elif job.state is JobState.CANCELLING:
        cancelled = JobCancelled("Job was cancelled while it ran").to_failure()
        core.move(turn, job, JobState.CANCELLED, failure=cancelled, result=outcome.result)
    elif outcome.failure is None:  # by a worker that drains: nothing is held against the job
        core.keep_attempt(turn, job, "handed_back")
        _requeue(core, turn, job)
    else:
        _fail(core, turn, job, outcome.failure, draw, probe_failed=probe_failed)


def _tell_gate(core: Core, turn: Turn, job: JobRecord, outcome: Outcome) -> bool:
    """Tell whether this was a probe and found the provider still down."""
    gate = core.gates.of(job.lane, now=turn.now)
    if outcome.tokens:
        gate.used(outcome.tokens, turn.now)
    probed = gate.is_probe(job.started_at)
    if outcome.cancelled:
        gate.ended(job.started_at)
        return False
    if outcome.failure is None:
        change = gate.succeeded(started_at=job.started_at, now=turn.now)
    else:
        limit_s = job.timeout_ms / 1e3
        change = gate.failed(outcome.failure, limit_s=limit_s, started_at=job.started_at, now=turn.now)
    if change:
        _publish_gate(core, turn, change)
    return probed and gate.probing and change is not None


def _publish_gate(core: Core, turn: Turn, change: GateChange) -> None:
    core.publish_gate(turn, change)
    if change.until:
        core.fail_fast.close(core.gates.at(change.key, now=turn.now), change.reason)
        _end_hasty(core, turn)


def _end_hasty(core: Core, turn: Turn) -> None:
    """End some of the jobs that would not wait at a gate that has closed."""
    for job_id, reason in core.fail_fast.take(core.policy.most_at_once):
        job = core.live[job_id]
        if job.state is JobState.QUEUED:
            fail_closed(core, turn, job, reason)


def _fail(core: Core, turn: Turn, job: JobRecord, failure: Failure, draw: float, *, probe_failed: bool = False) -> None:
    policy = core.policy.retry
    refusals = core.refusals.get(job.id, 0)
    asked = asks_to_wait(failure)
    if not asked and failure.kind != PayloadUnreadable.kind:  # then it did not run
        suspects.acquit(job)
    if (asked or probe_failed) and refusals < policy.max_refusals and job.id not in core.fail_fast:
        core.refusals[job.id] = refusals + 1  # the gate makes it wait at its old place; no attempt is spent
        core.keep_attempt(turn, job, "refused", failure)
        if not asked:  # an outage must not use up one job's retries, and the next probe is another's if one waits
            job.run_at = core.gates.of(job.lane, now=turn.now).closed_until + policy.base_s
        core.move(turn, job, JobState.QUEUED if asked else JobState.SCHEDULED)
        return
    verdict = after_failure(job, failure, policy, now=turn.now, draw=draw)
    job.run_at = verdict.run_at
    if verdict.state is JobState.SCHEDULED:
        job.retries += 1
        core.keep_attempt(turn, job, "failed", failure)
    core.move(turn, job, verdict.state, failure=failure)


def _agree(worker: Worker, running: set[tuple[str, int]]) -> list[JobRecord]:
    """Settle a difference after a lost call: claims that never arrived are given again, under the same attempt."""
    held = {(job.id, job.attempt) for job in worker.held.values()}
    stop = running - held
    stop |= {(job.id, job.attempt) for job in worker.held.values() if job.state is JobState.CANCELLING}
    worker.cancels = sorted(stop)
    return sorted((worker.held[job_id] for job_id, _ in held - running), key=lambda job: (job.level, job.seq))


def lose_worker(core: Core, turn: Turn, command: LoseWorker) -> int:
    """Carry out a LoseWorker."""
    jobs = core.leases.forget(command.worker_id)
    for job in jobs:
        _crash(core, turn, job, command, beside=len(jobs))
    return len(jobs)


def _crash(core: Core, turn: Turn, job: JobRecord, command: LoseWorker, *, beside: int) -> None:
    reason, limit = command.reason, core.policy.retry.max_crashes
    suspects.accuse(job, beside=beside, crashed=command.crashed, max_crashes=limit)
    core.gates.of(job.lane, now=turn.now).ended(job.started_at)
    lost = WorkerLost(f"Worker {job.worker_id} was lost: {reason}").to_failure()
    if job.state is JobState.CANCELLING:
        core.move(turn, job, JobState.CANCELLED, failure=lost)
        return
    verdict = after_crash(job, core.policy.retry)
    if verdict.state is JobState.QUEUED:
        core.keep_attempt(turn, job, "lost", lost)
        core.publish(turn, job, RETRIED, failure=lost)
        _requeue(core, turn, job, lost)
    else:
        poison = PoisonJob(f"{job.blamed} workers died while they ran this job and no other; the last one: {reason}")
        core.move(turn, job, verdict.state, failure=poison.to_failure())


def _requeue(core: Core, turn: Turn, job: JobRecord, failure: Failure | None = None) -> None:
    """Bring a job back to its place, unless its gate is closed and it is not to wait there."""
    core.move(turn, job, JobState.QUEUED, failure=failure)
    gate = core.gates.of(job.lane, now=turn.now)
    if job.id in core.fail_fast and turn.now < gate.closed_until:
        fail_closed(core, turn, job, gate.reason)


def tick(core: Core, turn: Turn, command: Tick) -> None:
    """Carry out a Tick."""
    core.leases.extend(command.pause_s, now=turn.now)
    core.groups.extend(command.pause_s, now=turn.now)
    if core.links.freed or core.links.lost:
        batches.settle(core, turn)
    if not core.links.freed and not core.links.lost:  # what has happened has all its consequences before more happens
        _expire(core, turn)
        _end_hasty(core, turn)
        if core.groups:
            batches.tick(core, turn)
        if core.lists:
            lists.release(core, turn)
    _come_due(core, turn)
    for change in core.gates.reopen(turn.now):
        core.publish_gate(turn, change)
    _lose_silent(core, turn)
    core.forget_unused(turn.now)


def _come_due(core: Core, turn: Turn) -> None:
    most = core.policy.most_at_once
    kept = [core.live[job_id] for job_id in core.appointments.take(turn.now + core.ahead_s, most)]
    due = [job for job in kept if core.keep_appointment(turn, job)]
    for job in [*core.due.take(turn.now, most), *due]:
        job.run_at = 0.0
        _requeue(core, turn, job)


def _lose_silent(core: Core, turn: Turn) -> None:
    lost = 0
    for worker_id in core.leases.silent(turn.now):
        reason = f"no heartbeat for {core.policy.lease_s:g} s"
        lost += lose_worker(core, turn, LoseWorker(worker_id, reason, crashed=False))
        if lost >= core.policy.most_at_once:
            return  # the others are still silent at the next tick


def _expire(core: Core, turn: Turn) -> None:
    most = core.policy.most_at_once
    for job_id in [*core.deadlines.take(turn.now, most), *core.start_by.take(turn.now + core.ahead_s, most)]:
        job = core.live.get(job_id)  # None: it had both, and they came together
        if job is not None and not core.groups.drops(job):
            expire(core, turn, job)


def restore_lease(core: Core, job: JobRecord, *, now: float) -> None:
    """After a restart: the worker named in the journal still holds ``job``, as far as anyone knows."""
    worker = core.leases.heard(job.worker_id, job.lane.pool, now=now)
    core.leases.grant(worker, job)
    if worker.affinity:
        worker.affinity.model = job.lane.model
    if job.lane.company:
        core.quarantine[worker.pool] = worker.id
        core.isolated.add(worker.id)
    if job.state is JobState.CANCELLING:
        worker.cancels.append((job.id, job.attempt))
