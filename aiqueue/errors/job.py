"""Why a job did not complete."""

from __future__ import annotations

from typing import ClassVar

from aiqueue.encodable import encodable_text
from aiqueue.errors.base import AIQueueError
from aiqueue.protocol import Failure

_MAX_MESSAGE, _MAX_REQUEST_ID = 4_000, 256  # characters; a failure travels with every event and lies in the journal
_LONGEST_WAIT_S = 366 * 86_400.0
_MAX_STATUS = 999


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
        """Return this error as it travels and is journaled, whatever a provider put into it."""
        wait, status, request_id = self.retry_after_s, self.status, self.request_id
        return Failure(
            kind=self.kind,
            message=encodable_text(str(self), limit=_MAX_MESSAGE),
            retryable=self.retryable,
            status=status if status is not None and 0 <= status <= _MAX_STATUS else None,
            retry_after_s=min(max(wait, 0.0), _LONGEST_WAIT_S) if wait is not None and wait == wait else None,
            request_id=encodable_text(request_id, limit=_MAX_REQUEST_ID) if request_id else request_id,
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


class PayloadLost(JobError):
    """The journal has the job and not its payload, so that no worker can run it."""

    kind = "payload_lost"


class PayloadUnreadable(JobError):
    """The journal can't read the job's payload, or a result that the job needs, while it can read others."""

    kind = "payload_unreadable"
    retryable = True


class RecordUnreadable(JobError):
    """What the journal has of a job can't be read, so nothing more is known of it than its id and perhaps its state."""

    kind = "record_unreadable"


class InputsTooLarge(JobError):
    """The job needs more results of other jobs than one call can carry to its worker."""

    kind = "inputs_too_large"
    http_status = 413


class ResultTooLarge(JobError):
    """The provider answered with more than ``limits.max_result_bytes``; the call is paid, and its tokens count."""

    kind = "result_too_large"
    http_status = 502


class PoisonJob(JobError):
    """Several workers died one after the other while they held this job."""

    kind = "poison_job"


class DependencyFailed(JobError):
    """A job that this one needs did not complete, so it was not run."""

    kind = "dependency_failed"
    http_status = 424


class TemplateFailed(JobError):
    """The payload asks for something that the results it waited for do not have."""

    kind = "template_failed"
    http_status = 422


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
