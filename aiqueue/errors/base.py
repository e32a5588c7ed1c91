"""What a call can be refused with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


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
    SHOWN: ClassVar[int] = 5  # a message is for people; ``errors`` has more
    MAYBE_MORE: ClassVar[int] = 10  # errors: a list this long may have been cut

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(errors)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        more = len(self.errors) - self.SHOWN
        shown = "; ".join(str(error) for error in self.errors[: self.SHOWN])
        least = "at least " if len(self.errors) >= self.MAYBE_MORE else ""
        return shown + (f"; and {least}{more} more" if more > 0 else "")


class PayloadTooLarge(ValidationError):
    """A payload is over the limit of ``max_payload_bytes``."""

    kind = "payload_too_large"
    http_status = 413


class PartlySubmitted(AIQueueError):
    """A list was accepted in part: ``accepted`` has the ids of the jobs that are on disk, ``__cause__`` what refused
    the rest."""

    kind = "partly_submitted"
    http_status = 503

    def __init__(self, accepted: Sequence[str], of: int) -> None:
        super().__init__(accepted, of)
        self.accepted = tuple(accepted)
        self.of = of

    def __str__(self) -> str:
        return (
            f"{len(self.accepted)} of {self.of} jobs were accepted ({self.__cause__}); error.accepted has their ids: "
            "submit the others again, or all as one batch"
        )


class DuplicateJob(AIQueueError):
    """The job id belongs to a job that was submitted with another body."""

    kind = "duplicate_job"
    http_status = 409

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"job id {self.job_id} is taken by a job with another body; leave job_id out to have one made"


class DuplicateBatch(AIQueueError):
    """The batch id belongs to another batch, which may have ended."""

    kind = "duplicate_batch"
    http_status = 409

    def __init__(self, batch_id: str) -> None:
        super().__init__(batch_id)
        self.batch_id = batch_id

    def __str__(self) -> str:
        return f"batch id {self.batch_id} is taken by another batch; give this one another id, or leave batch_id out"


class IdempotencyConflict(AIQueueError):
    """The idempotency key was used before with another body."""

    kind = "idempotency_conflict"
    http_status = 422

    def __init__(self, key: str, dead_letter: str = "") -> None:
        super().__init__(key, dead_letter)
        self.key = key
        self.dead_letter = dead_letter  #: the job whose redrive the key stands for: its caller has sent no key

    def __str__(self) -> str:
        if self.dead_letter:
            return (
                f"dead letter {self.dead_letter} was redriven with other changes in the last 24 hours: its successor "
                "is that job; redrive that one, once it is a dead letter itself"
            )
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


class DeadLetterNotFound(JobNotFound):
    """No dead letter has this id: the job ended otherwise or has not ended, was deleted, or never was."""

    kind = "dead_letter_not_found"

    def __str__(self) -> str:
        return f"No dead letter has the id {self.job_id}"


class ScheduleNotFound(AIQueueError, LookupError):
    """No schedule has this id or name."""

    kind = "schedule_not_found"
    http_status = 404

    def __init__(self, schedule: str) -> None:
        super().__init__(schedule)
        self.schedule = schedule

    def __str__(self) -> str:
        return f"Schedule not found: {self.schedule}"


class ScheduleExists(AIQueueError):
    """Another schedule has this name, and says something else."""

    kind = "schedule_exists"
    http_status = 409

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is another schedule {self.name!r}; remove it first, or give this one another name"


class BatchNotFound(AIQueueError, LookupError):
    """No batch, chain or graph has this id (or it ended and its retention time is over; or it was never sealed)."""

    kind = "batch_not_found"
    http_status = 404

    def __init__(self, batch_id: str) -> None:
        super().__init__(batch_id)
        self.batch_id = batch_id

    def __str__(self) -> str:
        return f"Batch not found: {self.batch_id}"


class AggregationFailed(AIQueueError):
    """The function of a fan-in raised; the message ends with its traceback."""

    kind = "aggregation_failed"


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
    was_sent = True  #: False if the queue was missed before the call was made, so that it can't have been carried out


class QueueNotRunning(QueueUnavailable):
    """There is no queue in this Ray namespace; `aiqueue up` starts one."""

    kind = "queue_not_running"


class QueueSilent(QueueUnavailable):
    """The queue actor is there but did not answer in time: it is very busy, or hangs."""

    kind = "queue_silent"


class TooManyPolls(QueueUnavailable):
    """As many clients wait for events as the queue can hold. Fewer processes, or look the jobs up instead."""

    kind = "too_many_polls"


class JournalUnavailable(QueueUnavailable):
    """The queue can't write its journal (disk full, I/O error), so it accepts nothing new."""

    kind = "journal_unavailable"


class QueueFault(AIQueueError):
    """The queue can't carry this call out: it ended its process before, because of a bug. Others' calls go on."""

    kind = "queue_fault"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} ended the queue's process not long ago, because of a bug, and is not tried again; the log of "
            "the queue actor says where. Please report it"
        )


class StartError(AIQueueError):
    """The system could not be started or found; the message says what to do."""

    kind = "start_failed"


class IncompatibleVersion(StartError):
    """The queue's release of aiqueue and this one do not understand each other; the message says which to change."""

    kind = "incompatible_version"
    http_status = 503
