"""Stopping jobs: at once where nobody runs them, else through their worker."""

from __future__ import annotations

from aiqueue.engine.commands import Cancel
from aiqueue.engine.core import HELD, Core
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.errors import CircuitOpen, JobCancelled, JobExpired
from aiqueue.protocol import CancelReply


def cancel(core: Core, turn: Turn, command: Cancel) -> list[CancelReply]:
    """Carry out a Cancel."""
    return [stop_job(core, turn, job_id) for job_id in command.job_ids]


def stop_job(core: Core, turn: Turn, job_id: str) -> CancelReply:
    """Cancel one job, if it is live."""
    job = core.live.get(job_id)
    if job is None:
        return CancelReply(job_id, cancelled=False, status="")
    if job.state not in HELD:
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


def fail_closed(core: Core, turn: Turn, job: JobRecord, reason: str) -> None:
    """End a job that was not to wait for a closed gate."""
    error = CircuitOpen(f"Circuit breaker: {job.lane.provider}/{job.lane.model} takes no calls now: {reason}")
    core.move(turn, job, JobState.FAILED, failure=error.to_failure())
