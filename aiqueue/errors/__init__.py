"""Every error this system raises.

AIQueueError
├── ValidationError        400  what was submitted is wrong; names every field
├── PayloadTooLarge        413
├── PartlySubmitted        503  some jobs of a list were accepted and others not
├── DuplicateJob           409  the id is taken by a job with another body
├── DuplicateBatch         409  the batch id is taken by another batch
├── IdempotencyConflict    422  the key was used with another body
├── JobNotFound            404
│   └── DeadLetterNotFound 404
├── ScheduleNotFound       404
├── ScheduleExists         409  the name is taken by another schedule
├── BatchNotFound          404
├── AggregationFailed      500  the function of a fan-in raised
├── QueueFull              429  try again later
├── QueueUnavailable       503  the queue actor can't be reached
│   ├── QueueNotRunning    503  there is none
│   ├── QueueSilent        503  it did not answer in time
│   ├── TooManyPolls       503  too many clients wait for events
│   └── JournalUnavailable 503  the queue can't write its journal
├── QueueFault             500  this call ended the queue's process before, because of a bug
├── StartError             500  the system could not be brought up
│   └── IncompatibleVersion 503 the queue is of a release that this one does not understand
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
    ├── PayloadLost        500  the journal does not have it any more
    ├── PayloadUnreadable  500  retry
    ├── RecordUnreadable   500  the journal has the job and can't read it
    ├── InputsTooLarge     413  it needs more results than one call can carry
    ├── ResultTooLarge     502
    ├── PoisonJob          500
    ├── DependencyFailed   424  a job that it needs did not complete
    ├── TemplateFailed     422  its template asks for what the results do not have
    ├── JobExpired         504
    └── JobCancelled       499

Errors cross process borders as ``Failure`` values (see ``protocol.py``): ``JobError.to_failure`` and
``error_from`` are the two ends. All survive pickling: whatever the constructor takes is in ``args``.
"""

from aiqueue.errors.base import (
    AggregationFailed,
    AIQueueError,
    BatchNotFound,
    DeadLetterNotFound,
    DuplicateBatch,
    DuplicateJob,
    FieldError,
    IdempotencyConflict,
    IncompatibleVersion,
    JobNotFound,
    JournalUnavailable,
    PartlySubmitted,
    PayloadTooLarge,
    QueueFault,
    QueueFull,
    QueueNotRunning,
    QueueSilent,
    QueueUnavailable,
    ScheduleExists,
    ScheduleNotFound,
    StartError,
    TooManyPolls,
    ValidationError,
)
from aiqueue.errors.job import (
    JOB_ERRORS,
    AuthenticationFailed,
    CircuitOpen,
    ContentRefused,
    ContextLengthExceeded,
    DependencyFailed,
    InputsTooLarge,
    InvalidRequest,
    JobCancelled,
    JobError,
    JobExpired,
    JobTimeout,
    MalformedResponse,
    ModelUnavailable,
    OutOfMemory,
    PayloadLost,
    PayloadUnreadable,
    PoisonJob,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    RateLimited,
    RecordUnreadable,
    ResultTooLarge,
    TemplateFailed,
    WorkerFault,
    WorkerLost,
    error_from,
)

__all__ = [
    "JOB_ERRORS",
    "AIQueueError",
    "AggregationFailed",
    "AuthenticationFailed",
    "BatchNotFound",
    "CircuitOpen",
    "ContentRefused",
    "ContextLengthExceeded",
    "DeadLetterNotFound",
    "DependencyFailed",
    "DuplicateBatch",
    "DuplicateJob",
    "FieldError",
    "IdempotencyConflict",
    "IncompatibleVersion",
    "InputsTooLarge",
    "InvalidRequest",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobNotFound",
    "JobTimeout",
    "JournalUnavailable",
    "MalformedResponse",
    "ModelUnavailable",
    "OutOfMemory",
    "PartlySubmitted",
    "PayloadLost",
    "PayloadTooLarge",
    "PayloadUnreadable",
    "PoisonJob",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderServerError",
    "QueueFault",
    "QueueFull",
    "QueueNotRunning",
    "QueueSilent",
    "QueueUnavailable",
    "RateLimited",
    "RecordUnreadable",
    "ResultTooLarge",
    "ScheduleExists",
    "ScheduleNotFound",
    "StartError",
    "TemplateFailed",
    "TooManyPolls",
    "ValidationError",
    "WorkerFault",
    "WorkerLost",
    "error_from",
]
