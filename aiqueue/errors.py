"""Every error this system raises.

AIQueueError
├── ValidationError        400  what was submitted is wrong; names every field
├── PayloadTooLarge        413
├── DuplicateJob           409  the id is taken by a job with another body
├── IdempotencyConflict    422  the key was used with another body
├── JobNotFound            404
├── QueueFull              429  try again later
├── QueueUnavailable       503  the queue actor can't be reached
│   ├── QueueNotRunning    503  there is none
│   ├── QueueSilent        503  it did not answer in time
│   └── JournalUnavailable 503  the queue can't write its journal
├── StartError             500  the system could not be brought up
└── JobError                    why a job did not complete; ``retryable`` says whether another attempt may help
    ├── ProviderError      502
    │   ├── RateLimited               retry
    │   ├── ProviderServerError       retry
    │   ├── ProviderConnectionError   retry
    │   ├── InvalidRequest
    │   │   ├── ContextLengthExceeded
    │   │   └── ContentRefused
    │   ├── AuthenticationFailed
    │   ├── MalformedResponse         retry
    │   └── ModelUnavailable
    ├── JobTimeout         504        retry
    ├── CircuitOpen        503        retry
    ├── OutOfMemory        507        retry
    ├── WorkerLost         503        retry
    ├── WorkerFault        500
    ├── PoisonJob          500
    ├── JobExpired         504
    └── JobCancelled       499

Errors cross process borders as ``Failure`` values (see ``protocol.py``): ``JobError.to_failure`` and
``error_from`` are the two ends. All survive pickling: whatever the constructor takes is in ``args``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aiqueue.protocol import Failure


class AIQueueError(Exception):
    """Base of all errors of this package."""

    kind: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with an input: where (``messages.0.role``), what, and in which job of a list."""

    field: str
    message: str
    index: int | None = None

    def __str__(self) -> str:
        job = "" if self.index is None else f"job {self.index}: "
        return f"{job}{self.field}: {self.message}"


class ValidationError(AIQueueError, ValueError):
    """The input can't be accepted; ``errors`` names every field. Nothing was enqueued."""

    kind = "invalid_input"
    http_status = 400
    SHOWN: ClassVar[int] = 5  # a message is for people; ``errors`` has them all

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(errors)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        more = len(self.errors) - self.SHOWN
        shown = "; ".join(str(error) for error in self.errors[: self.SHOWN])
        return shown + (f"; and {more} more" if more > 0 else "")


class PayloadTooLarge(ValidationError):
    """A payload is over the limit of ``max_payload_bytes``."""

    kind = "payload_too_large"
    http_status = 413


class DuplicateJob(AIQueueError):
    """The job id belongs to a job that was submitted with another body."""

    kind = "duplicate_job"
    http_status = 409

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"job id {self.job_id} is taken by a job with another body; leave job_id out to have one made"


class IdempotencyConflict(AIQueueError):
    """The idempotency key was used before with another body."""

    kind = "idempotency_conflict"
    http_status = 422

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"idempotency key {self.key!r} was used with another body; send the same body, or another key"


class JobNotFound(AIQueueError, LookupError):
    """No job has this id (or it ended and its retention time is over)."""

    kind = "job_not_found"
    http_status = 404

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"Job not found: {self.job_id}"


class _Unavailable(AIQueueError):
    """What these errors share: the same call may succeed after ``retry_after_s`` seconds."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class QueueFull(_Unavailable):
    """The queue holds as many jobs as its settings allow."""

    kind = "queue_full"
    http_status = 429


class QueueUnavailable(_Unavailable):
    """The queue actor did not answer in time. A submit may or may not have been accepted: send it again with its id."""

    kind = "queue_unavailable"
    http_status = 503


class QueueNotRunning(QueueUnavailable):
    """There is no queue in this Ray namespace; `aiqueue up` starts one."""

    kind = "queue_not_running"


class QueueSilent(QueueUnavailable):
    """The queue actor is there but did not answer in time: it is very busy, or hangs."""

    kind = "queue_silent"


class JournalUnavailable(QueueUnavailable):
    """The queue can't write its journal (disk full, I/O error), so it accepts nothing new."""

    kind = "journal_unavailable"


class StartError(AIQueueError):
    """The system could not be started or found; the message says what to do."""

    kind = "start_failed"


class JobError(AIQueueError):
    """Why a job did not complete."""

    kind = "job_failed"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status  #: the provider's HTTP status, where there was one
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.status, self.retry_after_s, self.request_id)

    def to_failure(self) -> Failure:
        """Return this error as it travels and is journaled."""
        return Failure(
            kind=self.kind,
            message=str(self),
            retryable=self.retryable,
            status=self.status,
            retry_after_s=self.retry_after_s,
            request_id=self.request_id,
        )


def _rebuild(
    cls: type[JobError], message: str, status: int | None, retry_after_s: float | None, request_id: str | None
) -> JobError:
    return cls(message, status=status, retry_after_s=retry_after_s, request_id=request_id)


class ProviderError(JobError):
    """The provider answered with an error, or did not answer. Messages start with ``Provider``."""

    kind = "provider_error"
    http_status = 502


class RateLimited(ProviderError):
    """The provider asked us to slow down, for ``retry_after_s`` seconds if it said so."""

    kind = "rate_limited"
    retryable = True


class ProviderServerError(ProviderError):
    """The provider failed on its side (5xx, 408, 409, 529)."""

    kind = "provider_server_error"
    retryable = True


class ProviderConnectionError(ProviderError):
    """The provider could not be reached, or the connection broke."""

    kind = "provider_connection"
    retryable = True


class MalformedResponse(ProviderError):
    """The provider's answer is not what its wire format promises."""

    kind = "malformed_response"
    retryable = True


class InvalidRequest(ProviderError):
    """The provider refused the request itself (400, 404, 413, 422): sending it again can't help."""

    kind = "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the model's context."""

    kind = "context_length_exceeded"


class ContentRefused(InvalidRequest):
    """The provider's policy refused the content."""

    kind = "content_refused"


class AuthenticationFailed(ProviderError):
    """The credential is missing or was refused (401, 403)."""

    kind = "authentication_failed"


class ModelUnavailable(ProviderError):
    """The model can't be served here: its file is missing, is no GGUF, or does not load."""

    kind = "model_unavailable"


class JobTimeout(JobError):
    """An attempt took longer than the job's ``timeout``. The message contains ``timeout``."""

    kind = "timeout"
    http_status = 504
    retryable = True


class CircuitOpen(JobError):
    """Circuit breaker open: the provider failed too often lately, so it is not asked."""

    kind = "circuit_open"
    http_status = 503
    retryable = True


class OutOfMemory(JobError):
    """The worker ran out of memory on this job."""

    kind = "out_of_memory"
    http_status = 507
    retryable = True


class WorkerLost(JobError):
    """The worker died or fell silent while it held the job."""

    kind = "worker_lost"
    http_status = 503
    retryable = True


class WorkerFault(JobError):
    """A bug in the worker or its provider adapter: the message has the exception's type, the log its traceback."""

    kind = "worker_fault"


class PoisonJob(JobError):
    """Several workers died one after the other while they held this job."""

    kind = "poison_job"


class JobExpired(JobError):
    """The job was not started before its deadline."""

    kind = "expired"
    http_status = 504


class JobCancelled(JobError):
    """The job was cancelled."""

    kind = "cancelled"
    http_status = 499


def _tree(root: type[JobError]) -> dict[str, type[JobError]]:
    found = {root.kind: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


JOB_ERRORS = _tree(JobError)  #: kind -> class


def error_from(failure: Failure) -> JobError:
    """Return the error that ``failure`` stands for; an unknown kind (a newer worker's) gives a plain JobError."""
    return JOB_ERRORS.get(failure.kind, JobError)(
        failure.message,
        status=failure.status,
        retry_after_s=failure.retry_after_s,
        request_id=failure.request_id,
    )
