"""From journal rows to what callers see."""

from __future__ import annotations

from aiqueue.engine.records import Progress, decode_progress
from aiqueue.engine.states import JobState
from aiqueue.journal.base import StoredJob
from aiqueue.protocol import JobView, Submission, decode_header


def view_of(stored: StoredJob, sla_ms: tuple[int, ...]) -> JobView:
    """Return a stored job as ``get_jobs`` shows it."""
    header = decode_header(stored.header)
    progress = decode_progress(stored.progress) if stored.progress else Progress()
    return JobView(
        stored.id,
        header,
        stored.state or JobState.QUEUED.value,
        sla_ms[header.level],
        progress.attempt,
        progress.failures,
        progress.crashes,
        progress.worker_id,
        progress.started_at,
        progress.finished_at,
        progress.run_at,
        progress.failure,
        stored.result,
        stored.payload,
    )


def is_same(stored: StoredJob, submitted: Submission) -> bool:
    """Tell whether ``submitted`` is the job that was stored: all but who sent it and when must be equal."""
    known = decode_header(stored.header)
    known.created_at, known.owner = submitted.header.created_at, submitted.header.owner
    return known == submitted.header and stored.payload == submitted.payload
