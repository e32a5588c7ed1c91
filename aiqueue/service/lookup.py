"""From journal rows to what callers see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiqueue.engine.records import Progress, decode_progress
from aiqueue.engine.states import JobState
from aiqueue.errors import DependencyFailed
from aiqueue.journal.base import StoredJob
from aiqueue.protocol import DeadLettersCall, JobInput, JobView, Need, Submission, decode_header

_IN_AN_ATTEMPT = frozenset({JobState.PROCESSING, JobState.CANCELLING, JobState.COMPLETED, JobState.DEAD_LETTER})


def view_of(stored: StoredJob, sla_ms: tuple[int, ...], attempts: list[bytes] | None = None) -> JobView:
    """Return a stored job as ``get_jobs`` shows it; ``attempts``: those before the last one."""
    header = decode_header(stored.header)
    progress = decode_progress(stored.progress) if stored.progress else Progress()
    return JobView(
        stored.id,
        header,
        stored.state or JobState.QUEUED.value,
        sla_ms[header.level],
        progress.attempt,
        progress.retries,
        progress.crashes,
        progress.worker_id,
        progress.started_at,
        progress.finished_at,
        progress.run_at,
        progress.failure,
        stored.result,
        stored.payload,
        attempts or [],
    )


def has_history(stored: StoredJob) -> bool:
    """Tell whether there may be records of earlier attempts: also of the last one, if the job waits or waited then."""
    attempt = decode_progress(stored.progress).attempt if stored.progress else 0
    return attempt > 1 or (attempt == 1 and stored.state not in _IN_AN_ATTEMPT)


def inputs_of(needs: Sequence[Need], on_error: str, stored: Mapping[str, StoredJob]) -> list[JobInput]:
    """Return what the jobs came to that another one waited for, as it is given to that one's worker."""
    found: list[JobInput] = []
    for need in needs:
        job = stored.get(need.job_id)
        if job is None:
            gone = DependencyFailed(f"the result of job {need.job_id} is not kept any more").to_failure()
            found.append(JobInput(need.names, "gone", failure=gone))
        elif job.state == JobState.COMPLETED or on_error != "skip":
            failure = decode_progress(job.progress).failure if job.progress else None
            found.append(JobInput(need.names, job.state, job.result, failure))
    return found


def is_wanted(view: JobView, call: DeadLettersCall) -> bool:
    """Tell whether a dead letter passes the filters of ``call``."""
    header = view.header
    return (
        (not call.kind or (view.failure is not None and view.failure.kind == call.kind))
        and (not call.model or header.model == call.model)
        and (not call.tag or call.tag in header.tags)
        and view.finished_at >= call.since
    )


def is_same(stored: StoredJob, submitted: Submission) -> bool:
    """Tell whether ``submitted`` is the job that was stored: all but who sent it and when must be equal."""
    known = decode_header(stored.header)
    if known.delay_ms:  # relative to acceptance: the queue has made times of them
        known.run_at = submitted.header.run_at
    if known.expires_in_ms:
        known.expires_at = submitted.header.expires_at
    known.created_at, known.owner = submitted.header.created_at, submitted.header.owner
    return known == submitted.header and stored.payload == submitted.payload
