"""What workers report, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence

from aiqueue.engine.commands import Claim, Exchange, LoseWorker, Tick
from aiqueue.engine.core import Core, Turn
from aiqueue.engine.effects import Granted
from aiqueue.engine.leases import Worker
from aiqueue.engine.records import JobRecord
from aiqueue.engine.retry import after_crash, after_failure
from aiqueue.engine.states import JobState
from aiqueue.errors import JobCancelled, PoisonJob, WorkerLost
from aiqueue.protocol import Outcome


def exchange(core: Core, turn: Turn, command: Exchange) -> Granted:
    """Carry out an Exchange: outcomes first, so that the slots they free are filled again."""
    worker = core.leases.heard(command.worker_id, command.pool, now=turn.now)
    worker.slots = command.slots
    for outcome in command.outcomes:
        _report(core, turn, worker, outcome, command.draw)
    again = [] if command.running is None else _agree(worker, set(command.running))
    return _grant(core, turn, worker, again=again)


def claim(core: Core, turn: Turn, command: Claim) -> Granted:
    """Carry out a Claim; nothing for a worker that is not known (any more)."""
    worker = core.leases.find(command.worker_id)
    return Granted() if worker is None else _grant(core, turn, worker, most=command.most)


def _grant(
    core: Core, turn: Turn, worker: Worker, *, again: Sequence[JobRecord] = (), most: int | None = None
) -> Granted:
    room = worker.free if most is None else min(worker.free, most)
    granted = Granted([*again, *core.claim(turn, worker, room)], worker.cancels)
    worker.cancels = []
    return granted


def _report(core: Core, turn: Turn, worker: Worker, outcome: Outcome, draw: float) -> None:
    job = worker.held.get(outcome.job_id)
    if job is None or job.attempt != outcome.attempt:
        turn.counted = True
        core.counters.stale_outcomes += 1  # too late: the lease was taken away; or sent twice
    elif outcome.failure is None and not outcome.cancelled:
        core.move(turn, job, JobState.COMPLETED, result=outcome.result)
    elif job.state is JobState.CANCELLING:
        cancelled = JobCancelled("Job was cancelled while it ran").to_failure()
        core.move(turn, job, JobState.CANCELLED, failure=cancelled, result=outcome.result)
    elif outcome.failure is None:
        core.move(turn, job, JobState.QUEUED)  # handed back by a worker that drains: nothing is held against the job
    else:
        job.failures += 1
        verdict = after_failure(job, outcome.failure, core.policy.retry, now=turn.now, draw=draw)
        job.run_at = verdict.run_at
        core.move(turn, job, verdict.state, failure=outcome.failure)


def _agree(worker: Worker, running: set[tuple[str, int]]) -> list[JobRecord]:
    """Settle a difference after a lost call: claims that never arrived are given again, under the same attempt."""
    held = {(job.id, job.attempt) for job in worker.held.values()}
    stop = running - held
    stop |= {(job.id, job.attempt) for job in worker.held.values() if job.state is JobState.CANCELLING}
    worker.cancels = sorted(stop)
    return [worker.held[job_id] for job_id, _ in sorted(held - running)]


def lose_worker(core: Core, turn: Turn, command: LoseWorker) -> int:
    """Carry out a LoseWorker."""
    jobs = core.leases.forget(command.worker_id)
    for job in jobs:
        _crash(core, turn, job, command.reason)
    return len(jobs)


def _crash(core: Core, turn: Turn, job: JobRecord, reason: str) -> None:
    job.crashes += 1
    lost = WorkerLost(f"Worker {job.worker_id} was lost: {reason}").to_failure()
    if job.state is JobState.CANCELLING:
        core.move(turn, job, JobState.CANCELLED, failure=lost)
        return
    verdict = after_crash(job, core.policy.retry)
    if verdict.state is JobState.DEAD_LETTER:
        lost = PoisonJob(
            f"{job.crashes} workers were lost while they ran this job; the last one: {reason}"
        ).to_failure()
    core.move(turn, job, verdict.state, failure=lost)


def tick(core: Core, turn: Turn, _: Tick) -> None:
    """Carry out a Tick."""
    for job in core.due.take(turn.now):
        job.run_at = 0.0
        core.move(turn, job, JobState.QUEUED)
    for worker_id in core.leases.silent(turn.now):
        lose_worker(core, turn, LoseWorker(worker_id, f"no heartbeat for {core.policy.lease_s:g} s"))


def restore_lease(core: Core, job: JobRecord, *, now: float) -> None:
    """After a restart: the worker named in the journal still holds ``job``, as far as anyone knows."""
    worker = core.leases.heard(job.worker_id, job.lane.pool, now=now)
    core.leases.grant(worker, job)
    if job.state is JobState.CANCELLING:
        worker.cancels.append((job.id, job.attempt))
