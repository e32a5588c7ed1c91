"""From a job's options to the header that the queue reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from aiqueue import texts
from aiqueue.errors import FieldError, ValidationError
from aiqueue.models import BatchOptions, GraphOptions, JobOptions
from aiqueue.protocol import BatchSpec, JobHeader, Submission, SubmitGroup
from aiqueue.validation import CheckedPayload, PayloadChecker, validate_options

DEFAULT_SCOPE = "default"  #: idempotency keys of one caller do not meet another caller's


def header_fields(options: JobOptions, *, owner: str, default_retries: int, batch_id: str) -> tuple[Any, ...]:
    """Return the fields of a JobHeader from ``level`` on, in its order: equal for all jobs submitted together.

    The idempotency key is not among them: of many jobs the first one alone carries it. Nor is the metadata, which
    travels once for all jobs of a group.
    """
    waits = [wait for wait in (options.expires_in, options.start_timeout) if wait is not None]
    return (
        options.priority.rank,
        owner,
        default_retries if options.max_retries is None else options.max_retries,
        options.timeout,
        options.tags,
        b"",
        batch_id,
        0.0,  # created_at is the queue's to set
        _seconds(options.run_at),
        options.delay or 0,
        _seconds(options.deadline),
        min(waits, default=0),
        options.on_gate == "fail",
    )


def checked_options(
    checker: PayloadChecker,
    options: Mapping[str, Any] | JobOptions | None,
    *,
    batch_id: str = "",
    key: object = None,
    scope: object = DEFAULT_SCOPE,
) -> JobOptions:
    """Return options as their model. Raises ValidationError for them and for what else jobs are submitted with.

    Before payloads are read: of an iterator, a second try with what is right would find nothing.
    """
    checked = validate_options(options)
    checker.metadata_of(checked)
    if batch_id:
        texts.BATCH_ID.check("batch_id", batch_id)
    scoped_key(key, scope)
    return checked


def scoped_key(key: object, scope: object) -> str:
    """Return an idempotency key as the queue keeps it, empty for None. A scope has no colon.

    Raises ValidationError for a key or a scope that is empty, too long or holds control characters.
    """
    if key is None:
        return ""
    key = texts.IDEMPOTENCY_KEY.check("idempotency_key", key)
    scope = texts.SCOPE.check("scope", scope)
    if ":" in scope:
        raise ValidationError([FieldError("scope", "holds a colon, which ends the scope of a key")])
    return f"{scope}:{key}"


def callers_key(scoped: str) -> str:
    """Return an idempotency key as the caller sent it."""
    return scoped.partition(":")[2]


def batch_spec(
    batch_id: str, options: JobOptions, metadata: bytes, *, kind: str = "batch", is_open: bool = False
) -> BatchSpec:
    """Return what the queue is told of a batch, a chain or a graph whose jobs have these options.

    Raises ValidationError for an id that is too long or holds control characters.
    """
    batch_id = texts.BATCH_ID.check("batch_id", batch_id)
    spec = BatchSpec(batch_id, kind, is_open=is_open, tags=options.tags, metadata=metadata)
    if isinstance(options, BatchOptions | GraphOptions):
        spec.name, spec.max_concurrency = options.name or "", options.max_concurrency or 0
    if isinstance(options, BatchOptions):
        spec.fail_fast, spec.max_failed_ratio = options.fail_fast, options.max_failed_ratio
    return spec


def group_of(
    payloads: Sequence[CheckedPayload],
    ids: Sequence[str],
    fields: tuple[Any, ...],
    *,
    key: str,
    batch: BatchSpec | None,
    metadata: bytes,
) -> SubmitGroup:
    """Return jobs as they are sent, with headers of ``header_fields``. Jobs of one kind and model share a header."""
    headers = {what: JobHeader(*what, *fields) for what in {checked[:3] for checked in payloads}}
    jobs = [
        Submission(job_id, headers[checked[:3]], checked.body) for job_id, checked in zip(ids, payloads, strict=True)
    ]
    if batch is not None:
        for index, job in enumerate(jobs):
            job.header = replace(job.header, index=index)
    if jobs and key:
        jobs[0].header = replace(jobs[0].header, idempotency_key=key)
    return SubmitGroup(jobs, batch=batch, metadata=metadata)


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
