"""From journal rows to what callers see."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set

from aiqueue.engine import TERMINAL, QueueEngine
from aiqueue.engine.records import JobRecord, Progress, decode_progress
from aiqueue.engine.soundness import check_level
from aiqueue.engine.states import JobState
from aiqueue.engine.successors import DELETED
from aiqueue.errors import DependencyFailed, RecordUnreadable
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import DeadLettersCall, JobHeader, JobInput, JobView, Need, Submission, decode_header
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.digests import in_order
from aiqueue.service.holds import Holds

_log = logging.getLogger(__name__)
_IN_AN_ATTEMPT = frozenset({JobState.PROCESSING, JobState.CANCELLING, JobState.COMPLETED, JobState.DEAD_LETTER})


def view_of(stored: StoredJob, sla_ms: tuple[int, ...], attempts: list[bytes] | None = None) -> JobView:
    """Return a stored job as ``get_jobs`` shows it; ``attempts``: those before the last one."""
    header = decode_header(stored.header)
    check_level(stored.id, header.level, len(sla_ms))
    header.metadata = header.metadata or stored.metadata
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
        "" if progress.successor == DELETED else progress.successor,
    )


def unreadable(job_id: str, state: str, error: Exception, job: JobRecord | None, sla_ms: tuple[int, ...]) -> JobView:
    """Return a job as it is shown whose row can't be read or decoded: it hides no job beside it.

    ``job``: as the engine has it, if it has not ended.
    """
    _log.error("job %s: its row in the journal can't be read: %s", job_id, error)
    said = RecordUnreadable(
        f"The journal has job {job_id} and can't read it ({type(error).__name__}: {error}); check the journal's disk, "
        "and submit the job again if you need its result"
    )
    if job is None:
        header = JobHeader("", "", "", len(sla_ms) // 2, "")
        return JobView(job_id, header, state or JobState.FAILED.value, 0, failure=said.to_failure())
    header = JobHeader(job.type, job.lane.provider, job.lane.model, job.level, "", batch_id=job.batch_id)
    return JobView(job_id, header, job.state.value, sla_ms[job.level], job.attempt, failure=said.to_failure())


def has_history(stored: StoredJob) -> bool:
    """Tell whether there may be records of earlier attempts: also of the last one, if the job waits or waited then."""
    try:
        attempt = decode_progress(stored.progress).attempt if stored.progress else 0
    except ValueError:
        return False
    return attempt > 1 or (attempt == 1 and stored.state not in _IN_AN_ATTEMPT)


def input_of(need: Need, place: int, on_error: str, job: StoredJob | None) -> JobInput | None:
    """Return what ``job`` came to, as it is given to the worker of a job that waited for it; None if it is skipped.

    ``place``: of ``need`` among all needs of that job, which is also its place in templates.
    """
    if job is None:
        gone = DependencyFailed(f"the result of job {need.job_id} is not kept any more").to_failure()
        return JobInput(need.names, "gone", failure=gone, place=place)
    if job.state != JobState.COMPLETED and on_error == "skip":
        return None
    failure = decode_progress(job.progress).failure if job.progress else None
    return JobInput(need.names, job.state, job.result, failure, place)


def is_wanted(view: JobView, call: DeadLettersCall) -> bool:
    """Tell whether a dead letter passes the filters of ``call``."""
    header = view.header
    return (
        (not call.kind or (view.failure is not None and view.failure.kind == call.kind))
        and (not call.model or header.model == call.model)
        and (not call.tag or call.tag in header.tags)
        and view.finished_at >= call.since
    )


def is_same(stored: StoredJob, submitted: Submission, shared: bytes = b"") -> bool:
    """Tell whether ``submitted`` is the job that was stored: all but who sent it and when must be equal.

    ``shared`` is the metadata that its group was sent with.
    """
    known = decode_header(stored.header)
    if not _is_same_json(known.metadata or stored.metadata, submitted.header.metadata or shared):
        return False
    known.metadata = submitted.header.metadata
    if known.delay_ms:  # relative to acceptance: the queue has made times of them
        known.run_at = submitted.header.run_at
    if known.expires_in_ms:
        known.expires_at = submitted.header.expires_at
    known.created_at, known.owner = submitted.header.created_at, submitted.header.owner
    return known == submitted.header and _is_same_json(stored.payload, submitted.payload)


def _is_same_json(stored: bytes, sent: bytes) -> bool:
    return stored == sent or in_order(stored) == in_order(sent)


def needs_of(jobs: Sequence[Submission]) -> Set[str]:
    """Return the jobs beside these ones that these ones need."""
    return {need.job_id for job in jobs for need in job.header.needs} - {job.id for job in jobs}


async def ended_needs(
    asked: Set[str], engine: QueueEngine, journal: Journal, commits: CommitPipeline, holds: Holds
) -> dict[str, str]:
    """Return the states of the needed jobs that have ended. Accept the jobs that need them before the next await."""
    ended: dict[str, str] = {}
    looked_up: set[str] = set()
    with holds.hold(asked):
        while missing := [job_id for job_id in asked - looked_up if not engine.knows(job_id)]:
            looked_up.update(missing)
            await asyncio.shield(commits.settled())
            ended |= await commits.read(read_ended, journal, missing)
    return ended


def read_ended(journal: Journal, job_ids: Sequence[str]) -> dict[str, str]:
    """Return how those of the jobs ended that have."""
    return {job_id: state for job_id, state in journal.states(job_ids).items() if state in TERMINAL}
