"""What the queue shows of itself: jobs, cancels and statistics, as Python objects and as camelCase JSON."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from aiqueue.engine.records import AttemptRecord, decode_attempt
from aiqueue.errors import JobError, RecordUnreadable, error_from
from aiqueue.journal_info import JournalInfo
from aiqueue.levels import LEVELS, AIJobPriority
from aiqueue.protocol import END_STATES, Event, Failure, JobHeader, JobView, sla_starts_at
from aiqueue.results import JobResult, decode_result


class _View(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """Camel-case JSON. No cycles, so nothing for the collector."""


class SlaCompliance(_View):
    """Whether a completed job kept its level's promise; from acceptance to the result on disk, in milliseconds."""

    met: bool
    target_ms: int
    actual_ms: float


class ErrorInfo(_View):
    """Why a job did not complete (or its last attempt did not)."""

    kind: str
    message: str
    retryable: bool
    status: int | None = None
    request_id: str | None = None


class AttemptInfo(_View, omit_defaults=True):
    """One attempt that ended while its job went on. The one that ended the job, or runs, is in the job itself."""

    attempt: int
    #: ``failed``, ``refused`` (asked to wait, no retry spent), ``lost`` (with its worker), ``handed_back``.
    outcome: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    worker_id: str | None = None
    error: ErrorInfo | None = None


class JobInfo(_View, omit_defaults=True):
    """A job as users see it."""

    job_id: str
    status: str
    priority: str
    type: str
    provider: str
    model: str
    created_at: datetime
    started_at: datetime | None = None  #: of the attempt that runs or that ended the job; None while it waits
    finished_at: datetime | None = None
    run_at: datetime | None = None  #: it waits until then
    attempt: int = 0
    retry_count: int = 0  #: failed attempts that were followed by another one; not those that were lost or refused
    worker_id: str | None = None
    batch_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    result: JobResult | None = None
    error: ErrorInfo | None = None
    sla_compliance: SlaCompliance | None = None
    attempts: list[AttemptInfo] = []  #: those after which the job went on, the first one first
    redriven_from: str | None = None  #: the dead letter that this job repeats
    successor: str | None = None  #: the job that was put in its place: by a redrive, or a retry of its batch

    def exception(self) -> JobError | None:
        """Return the error that waiting for this job would raise, if it has ended without a result."""
        if self.error is None:
            return None
        found = self.error
        failure = Failure(found.kind, found.message, found.retryable, found.status, request_id=found.request_id)
        return error_from(failure)


class Cancellation(_View):
    """Answer to a cancel. True in a condition if this call ended the job or set out to.

    ``status`` is the job's state afterwards: ``cancelled``, ``cancelling`` (its worker was told), or the end it had
    reached before.
    """

    cancelled: bool
    status: str

    def __bool__(self) -> bool:
        return self.cancelled


class LevelStats(_View):
    """One priority level, since the journal was created; percentiles over recent jobs, in milliseconds."""

    level: str
    sla_ms: int
    queued: int = 0
    processing: int = 0
    completed: int = 0
    sla_met: int = 0
    sla_compliance: float = 1.0  #: share of completed jobs within the SLA; 1.0 before the first
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None


class LaneStats(_View):
    """One lane: jobs that share pool, provider and model."""

    pool: str
    provider: str
    model: str
    queued: int
    processing: int


class WorkerPoolStats(_View):
    """All workers that the queue hears from."""

    total_workers: int = 0
    idle_workers: int = 0
    busy_workers: int = 0
    average_processing_time_ms: float | None = None


class Rates(_View):
    """Completed jobs per second, over the last 1, 5 and 15 minutes (or since the start, if that is less)."""

    last_1_min: float = 0.0
    last_5_min: float = 0.0
    last_15_min: float = 0.0


class PoolStats(_View):
    """The workers of one pool that the queue hears from."""

    pool: str
    workers: int
    without_workers: bool = False  #: it should have some, and has had none for a minute


class QueueStats(_View):
    """The queue's own state (``adapter`` in the HTTP answer)."""

    is_running: bool
    total_jobs: int
    queued_jobs: int
    scheduled_jobs: int
    processing_jobs: int
    completed_jobs: int
    failed_jobs: int
    dead_letter_jobs: int
    cancelled_jobs: int
    expired_jobs: int
    completed_per_s: Rates
    stale_outcomes: int  #: reports of attempts that had been taken away
    oldest_waiting_s: float
    levels: list[LevelStats]
    lanes: list[LaneStats]
    worker_pool_stats: WorkerPoolStats
    blocked_jobs: int = 0  #: wait for other jobs, or for the rest of their batch
    closed_gates: int = 0  #: providers' models that are not asked just now
    dead_letter_queue: str = "ai-jobs-dlq"  #: what the dead letters are called together
    dead_letter_queue_depth: int = 0  #: those that are there now; ``dead_letter_jobs``: all there ever were
    pools: list[PoolStats] = []
    journal: JournalInfo | None = None
    restarts: int = 0  #: of the queue's process, over the life of its journal, that nobody asked for
    restarted_at: datetime | None = None  #: the last of them
    restart_reason: str = ""  #: of that one


class OrchestratorStats(_View):
    """Batches, chains and graphs (each is a batch), and schedules."""

    total_batches: int = 0
    active_batches: int = 0
    total_schedules: int = 0
    active_schedules: int = 0  #: those that are not paused
    scheduled_runs: int = 0  #: jobs that the schedules there are have started


class Stats(_View):
    """``GET /ai/stats``."""

    adapter: QueueStats
    orchestrator: OrchestratorStats


_FIRST_S = datetime(1, 1, 2, tzinfo=UTC).timestamp()
_LAST_S = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_ENDED_BY_AN_ATTEMPT = frozenset({"completed", "dead_letter"})  # the other ends may come while a job waits

encode_json = msgspec.json.Encoder().encode
decode_stats = msgspec.msgpack.Decoder(Stats).decode


def moment(seconds: float) -> datetime | None:
    """Return the UTC time ``seconds`` after the epoch; None for 0, which stands for "not yet", and for NaN.

    What no datetime can say is shown as the first or last that can: the clocks' difference may move a time beyond.
    """
    return None if not seconds or math.isnan(seconds) else _date(seconds)


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(max(_FIRST_S, seconds), _LAST_S), UTC)  # the first for NaN


def job_info(view: JobView) -> JobInfo:
    """Return ``view`` as users see it."""
    header, completed = view.header, view.status == "completed"
    attempts = [_attempt_info(decode_attempt(body)) for body in view.attempts]
    waits = bool(attempts) and attempts[-1].attempt == view.attempt  # or waited when it ended: no attempt ended it
    return JobInfo(
        job_id=view.id,
        status=view.status,
        priority=_priority(header.level),
        type=header.type,
        provider=header.provider,
        model=header.model,
        created_at=_date(header.created_at),
        started_at=None if waits else moment(view.started_at),
        finished_at=moment(view.finished_at),
        run_at=None if view.status in END_STATES else moment(view.run_at),
        attempt=view.attempt,
        retry_count=view.retries,
        worker_id=None if waits else view.worker_id or None,
        batch_id=header.batch_id or None,
        tags=header.tags,
        metadata=_metadata(header),
        result=decode_result(view.result) if view.result else None,
        error=_error_info(view.failure),
        sla_compliance=_compliance(sla_starts_at(header), view.finished_at, view.sla_ms) if completed else None,
        attempts=attempts,
        redriven_from=header.redriven_from or None,
        successor=view.successor or None,
    )


def readable_info(view: JobView) -> JobInfo:
    """Return ``view`` as users see it in a list. What can't be read of it is the error of its own job."""
    try:
        return job_info(view)
    except Exception as error:
        said = RecordUnreadable(
            f"What the queue says of job {view.id} can't be read ({type(error).__name__}: {error}); submit it again if "
            "you need its result"
        )
        level = view.header.level
        header = msgspec.structs.replace(
            view.header, metadata=b"", level=level if 0 <= level < len(LEVELS) else AIJobPriority.MEDIUM.rank
        )
        return job_info(
            msgspec.structs.replace(view, header=header, result=b"", attempts=[], failure=said.to_failure())
        )


def _attempt_info(record: AttemptRecord) -> AttemptInfo:
    return AttemptInfo(
        attempt=record.attempt,
        outcome=record.outcome,
        started_at=moment(record.started_at),
        ended_at=moment(record.ended_at),
        worker_id=record.worker_id or None,
        error=_error_info(record.failure),
    )


def tells_all(event: Event) -> bool:
    """Tell whether this end of a job, with the job's header, is all that a look-up would show: no earlier attempt."""
    return event.attempt == 0 or (event.attempt == 1 and event.status in _ENDED_BY_AN_ATTEMPT)


def event_info(event: Event, header: JobHeader | None = None) -> JobInfo:
    """Return the job as it was when ``event`` happened. Tags and metadata are in its ``header``, not in the event."""
    completed = event.status == "completed"
    ended = event.at if event.status in END_STATES else 0.0
    return JobInfo(
        job_id=event.job_id,
        status=event.status,
        priority=LEVELS[event.level],
        type=event.type,
        provider=event.provider,
        model=event.model,
        created_at=_date(event.created_at),
        started_at=moment(event.started_at),
        finished_at=moment(ended),
        attempt=event.attempt,
        retry_count=event.retry_count,
        worker_id=event.worker_id or None,
        batch_id=event.batch_id or None,
        tags=header.tags if header else (),
        metadata=_metadata(header) if header else {},
        result=decode_result(event.result) if event.result else None,
        error=_error_info(event.failure),
        sla_compliance=_compliance(event.since, event.at, event.sla_ms) if completed else None,
        redriven_from=(header.redriven_from if header else "") or None,
    )


def _priority(level: int) -> AIJobPriority:
    if not 0 <= level < len(LEVELS):
        raise ValueError(f"its level is {level}, and must be 0 to {len(LEVELS) - 1}")
    return LEVELS[level]


def _metadata(header: JobHeader) -> dict[str, Any]:
    return msgspec.json.decode(header.metadata) if header.metadata else {}


def _compliance(since: float, finished_at: float, target_ms: int) -> SlaCompliance:
    actual_ms = round((finished_at - since) * 1e3, 3)
    return SlaCompliance(met=actual_ms <= target_ms, target_ms=target_ms, actual_ms=actual_ms)


def _error_info(failure: Failure | None) -> ErrorInfo | None:
    if failure is None:
        return None
    return ErrorInfo(
        kind=failure.kind,
        message=failure.message,
        retryable=failure.retryable,
        status=failure.status,
        request_id=failure.request_id,
    )
