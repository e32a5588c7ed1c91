"""Stopping jobs: at once where nobody runs them, else through their worker."""

from __future__ import annotations

from aiqueue.engine.commands import Cancel
from aiqueue.engine.core import HELD, Core
from aiqueue.engine.publishing import SUBMITTED, Turn
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.errors import CircuitOpen, JobCancelled, JobExpired
from aiqueue.protocol import CancelReply


def cancel(core: Core, turn: Turn, command: Cancel) -> list[CancelReply]:
    """Carry out a Cancel."""
    return [_cancel(core, turn, job_id) for job_id in command.job_ids]


def _cancel(core: Core, turn: Turn, job_id: str) -> CancelReply:
    job = core.live.get(job_id)
    if job is not None and job.batch_id and core.groups.drops(job):
        return CancelReply(job_id, cancelled=False, status="")
    return stop_job(core, turn, job_id)


def stop_job(core: Core, turn: Turn, job_id: str) -> CancelReply:
    """Cancel one job, if it is live."""
    job = core.live.get(job_id)
    if job is None:
        return CancelReply(job_id, cancelled=False, status="")
    if job.state not in HELD:
        _announce(core, turn, job)
        core.move(turn, job, JobState.CANCELLED, failure=JobCancelled("Job was cancelled before it ran").to_failure())
    elif job.state is JobState.PROCESSING:
        core.move(turn, job, JobState.CANCELLING)
        worker = core.leases.find(job.worker_id)
        assert worker is not None, f"job {job.id} is held by an unknown worker"
        worker.cancels.append((job.id, job.attempt))
    return CancelReply(job_id, cancelled=True, status=job.state.value)


def expire(core: Core, turn: Turn, job: JobRecord) -> None:
    """End a job that was not started in time."""
    late = JobExpired("Job was not started before its deadline").to_failure()
    core.move(turn, job, JobState.EXPIRED, failure=late)


def _announce(core: Core, turn: Turn, job: JobRecord) -> None:
    """Announce a job of a long list whose turn has not come, so that its end is not its first event."""
    if core.lists and job.state is JobState.BLOCKED and job.batch_id not in core.groups.live:
        core.publish(turn, job, SUBMITTED)


def fail_where_closed(core: Core, turn: Turn, job: JobRecord) -> None:
    """Fail a new job that may not wait for a gate, if its gate is closed."""
    gate = core.gates.of(job.lane, now=turn.now)
    if turn.now < gate.closed_until and job.state is JobState.QUEUED:
        fail_closed(core, turn, job, gate.reason)


def fail_closed(core: Core, turn: Turn, job: JobRecord, reason: str) -> None:
    """Fail a job that may not wait for a closed gate."""
    error = CircuitOpen(f"Circuit breaker: {job.lane.provider}/{job.lane.model} takes no calls now: {reason}")
    core.move(turn, job, JobState.FAILED, failure=error.to_failure())
