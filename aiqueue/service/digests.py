"""What submits are compared by: their idempotency keys, and hashes of what they ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from aiqueue.ids import ids_from
from aiqueue.protocol import JobHeader, Submission, SubmitGroup, encode


def key_of(group: SubmitGroup) -> str:
    """Return the idempotency key of all the group's jobs, which the first one carries."""
    return group.jobs[0].header.idempotency_key if group.jobs else ""


def has_ids_of_first(group: SubmitGroup) -> bool:
    """Return True if all the group's ids follow from that of its first job, as those of jobs with one key do."""
    ids = [job.id for job in group.jobs]
    try:
        return len(ids) == 1 or ids == ids_from(ids[0], len(ids))
    except ValueError:  # no UUID
        return False


def digest_of(group: SubmitGroup) -> bytes:
    """Return a hash of all that makes these jobs what they are: not who sent them, when, and under which ids."""
    first, hashed = group.jobs[0], hashlib.blake2b(digest_size=16)
    hashed.update(encode(_options_of(first.header, group.metadata)) + first.payload)
    for job in group.jobs[1:]:  # they share their options
        hashed.update(encode((job.header.type, job.header.provider, job.header.model, job.payload)))
    if group.batch is not None:
        hashed.update(encode(replace(group.batch, id="")))
    if any(job.header.needs for job in group.jobs):
        hashed.update(encode(_needs_of(group.jobs)))
    return hashed.digest()


def _needs_of(jobs: Sequence[Submission]) -> list[tuple[str, list[tuple[int | str, Sequence[str]]]]]:
    """Return what each job waits for: those of the same group by their places, since each submit makes new ids."""
    places = {job.id: at for at, job in enumerate(jobs)}
    return [
        (job.header.on_error, [(places.get(need.job_id, need.job_id), need.names) for need in job.header.needs])
        for job in jobs
    ]


def _options_of(header: JobHeader, shared: bytes) -> tuple[Any, ...]:
    return (
        header.type,
        header.provider,
        header.model,
        header.level,
        header.max_retries,
        header.timeout_ms,
        header.tags,
        header.metadata or shared,
        0 if header.redriven_from else header.delay_ms,  # when a redrive's turn comes is not what it is
        header.run_at,
        header.expires_in_ms,
        header.expires_at,
        header.fail_fast,
    )
