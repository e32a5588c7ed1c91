"""What submits are compared by: their idempotency keys, and hashes of what they ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from aiqueue.engine.schedule_records import ScheduleSpec, encode_spec
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


def in_order(body: bytes) -> bytes:
    """Return JSON with the keys of each object in alphabetical order; what is no JSON, as it is.

    >>> in_order(b'{"b": {"d": 1, "c": [2]}, "a": null}')
    b'{"a":null,"b":{"c":[2],"d":1}}'
    """
    try:
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted") if body else body
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return body


def digest_of(group: SubmitGroup, form: Callable[[bytes], bytes] = in_order) -> bytes:
    """Return a hash of all that makes these jobs what they are: not who sent them, when, and under which ids.

    The order of keys in payloads and metadata does not count, unless ``form`` leaves it.
    """
    first, hashed = group.jobs[0], hashlib.blake2b(digest_size=16)
    hashed.update(encode(_options_of(first.header, form(first.header.metadata or group.metadata))))
    hashed.update(form(first.payload))
    for job in group.jobs[1:]:  # they share their options
        hashed.update(encode((job.header.type, job.header.provider, job.header.model, form(job.payload))))
    if group.batch is not None:
        hashed.update(encode(replace(group.batch, id="", metadata=form(group.batch.metadata))))
    if any(job.header.needs for job in group.jobs):
        hashed.update(encode(_needs_of(group.jobs)))
    return hashed.digest()


def has_digest(group: SubmitGroup, stored: bytes, digest: bytes) -> bool:
    """Return True if a key's ``stored`` digest is the group's: ``digest``, or the one that earlier releases kept."""
    return stored == digest or stored == digest_of(group, lambda body: body)


def digest_of_schedule(spec: ScheduleSpec, form: Callable[[bytes], bytes] = in_order) -> bytes:
    """Return a hash of what was asked for: not under which id."""
    header = replace(spec.header, metadata=form(spec.header.metadata))
    asked = replace(spec, id="", created_at=0.0, header=header, payload=form(spec.payload))
    return hashlib.blake2b(encode_spec(asked), digest_size=16).digest()


def has_digest_of_schedule(spec: ScheduleSpec, stored: bytes, digest: bytes) -> bool:
    """As ``has_digest``, of a schedule."""
    return stored == digest or stored == digest_of_schedule(spec, lambda body: body)


def _needs_of(jobs: Sequence[Submission]) -> list[tuple[str, list[tuple[int | str, Sequence[str]]]]]:
    """Return what each job waits for: those of the same group by their places, since each submit makes new ids."""
    places = {job.id: at for at, job in enumerate(jobs)}
    return [
        (job.header.on_error, [(places.get(need.job_id, need.job_id), need.names) for need in job.header.needs])
        for job in jobs
    ]


def _options_of(header: JobHeader, metadata: bytes) -> tuple[Any, ...]:
    return (
        header.type,
        header.provider,
        header.model,
        header.level,
        header.max_retries,
        header.timeout_ms,
        header.tags,
        metadata,
        0 if header.redriven_from else header.delay_ms,  # when a redrive's turn comes is not what it is
        header.run_at,
        header.expires_in_ms,
        header.expires_at,
        header.fail_fast,
    )
