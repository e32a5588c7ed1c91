"""How a request's body is read: at once, or in parts if it holds thousands of jobs.

A replica serves many requests on one event loop. So a large body is validated some jobs at a time, and what is wrong
with it is found in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import msgspec
import pydantic
from pydantic_core import PydanticKnownError

from aiqueue.errors import FieldError, ValidationError
from aiqueue.models import BatchBody, ChainBody, GraphBody
from aiqueue.texts import is_number
from aiqueue.validation import field_errors
from serve.body_fields import few_unknown, with_few_unknown
from serve.body_json import BODY, decode, refuse_double_names
from serve.http_errors import MAX_BAD_JOBS

PART = 100  #: jobs that are validated at once
PART_BYTES = 256 * 1_024  #: and their size; one larger job is a part by itself

_JOBS = ("jobs", "steps", "nodes")

Model = TypeVar("Model", bound=pydantic.BaseModel)


def parse_body(model: type[Model], raw: bytes) -> Model:
    """Return ``raw`` validated, parsed once. Raises ValidationError, which says where and what."""
    try:
        body = _validated(model, raw)
    except ValidationError as error:
        raise ValidationError([_in_batch(each) for each in error.errors]) from None
    decode(raw)  # finds numbers that can't be stored, which pydantic lets pass; a fifth of the time of the first look
    return body


async def parse_batch(raw: bytes) -> BatchBody:
    """Return a batch validated as by ``parse_body``; the event loop turns after each part of its jobs."""
    return await _in_parts(BatchBody, raw, "jobs", list[msgspec.Raw])


async def parse_chain(raw: bytes) -> ChainBody:
    """As ``parse_batch``, of a chain."""
    return await _in_parts(ChainBody, raw, "steps", list[msgspec.Raw])


async def parse_graph(raw: bytes) -> GraphBody:
    """As ``parse_batch``, of a graph."""
    return await _in_parts(GraphBody, raw, "nodes", dict[str, msgspec.Raw])


async def _in_parts(model: type[Model], raw: bytes, field: str, kind: Any) -> Model:
    """Return a body whose ``field`` is a list or an object of jobs, validated some of them at a time."""
    try:
        fields = decode(raw, dict[str, msgspec.Raw])
        jobs = decode(fields[field], kind)
    except (msgspec.ValidationError, KeyError):
        return parse_body(model, raw)  # it has no such field, or of another shape: no job is looked at
    if len(jobs) > (most := _most(model, field)):
        raise ValidationError([_too_many(jobs, field, most)])
    if len(few := few_unknown(model, fields)) < len(fields):
        fields, raw = few, msgspec.json.encode(few)
    refuse_double_names(raw, fields)
    if isinstance(jobs, dict):
        refuse_double_names(bytes(fields[field]), jobs, f"{field}.")
    parts = list(_parts(jobs))
    if len(parts) < 2:
        return parse_body(model, raw)
    del fields[field]
    valid, wrong, odd_number = list[Model](), list[FieldError](), list[FieldError]()
    for at, part in parts:
        body = msgspec.json.encode({field: part} if at else fields | {field: part})
        try:
            valid.append(_validated(model, body))
        except ValidationError as error:
            if any(each.field == BODY for each in error.errors):
                decode(raw)  # no JSON: the error says where in the whole
            wrong += [_shifted(each, field, at) for each in error.errors]
            if len({_job_of(each) for each in wrong}) >= MAX_BAD_JOBS:
                break  # an answer names no more
        else:
            odd_number = odd_number or _odd_number(body)
        await asyncio.sleep(0)
    if wrong:  # sorted as if it had been read at once
        raise ValidationError([_in_batch(each) for each in sorted(wrong, key=lambda each: not _is_in(each, field))])
    if odd_number:
        raise ValidationError(odd_number)
    return valid[0].model_copy(update={field: _together([getattr(body, field) for body in valid])})


@cache
def _most(model: type[pydantic.BaseModel], field: str) -> int:
    return next(int(limit.max_length) for limit in model.model_fields[field].metadata if hasattr(limit, "max_length"))


def _too_many(jobs: list[Any] | dict[str, Any], field: str, most: int) -> FieldError:
    """Return what pydantic says of a list or an object that is too long, after it has looked at all of it."""
    is_list = isinstance(jobs, list)
    context = {"field_type": "List" if is_list else "Dictionary", "max_length": most}
    error = PydanticKnownError("too_long", context | {"actual_length": len(jobs) if is_list else None})
    return FieldError(field, error.message())


def _parts(jobs: list[Any] | dict[str, Any]) -> Iterator[tuple[int, list[Any] | dict[str, Any]]]:
    """Yield parts of bounded size of a list or an object, each with the place of its first item."""
    named = list(jobs.items()) if isinstance(jobs, dict) else [("", job) for job in jobs]
    first, size = 0, 0
    for at, (name, job) in enumerate(named):
        its_size = len(name) + memoryview(job).nbytes
        if at > first and (at == first + PART or size + its_size > PART_BYTES):
            yield first, _as_given(jobs, named[first:at])
            first, size = at, 0
        size += its_size
    yield first, _as_given(jobs, named[first:])


def _as_given(jobs: list[Any] | dict[str, Any], part: list[tuple[str, Any]]) -> list[Any] | dict[str, Any]:
    return dict(part) if isinstance(jobs, dict) else [job for _, job in part]


def _together(parts: list[Any]) -> Any:
    if isinstance(parts[0], Mapping):
        return {name: job for part in parts for name, job in part.items()}
    return [job for part in parts for job in part]


def _validated(model: type[Model], raw: bytes) -> Model:
    try:
        return model.model_validate_json(with_few_unknown(model, raw))
    except pydantic.ValidationError as error:
        found = field_errors(error, prefix=BODY, jobs_in=_JOBS)
        # The prefix stays only where the body as a whole is wrong.
        raise ValidationError([replace(each, field=each.field.removeprefix(f"{BODY}.")) for each in found]) from None


def _odd_number(raw: bytes) -> list[FieldError]:
    try:
        decode(raw)
    except ValidationError as error:
        return list(error.errors)
    return []


def _job_of(error: FieldError) -> str:
    return ".".join(error.field.split(".", 2)[:2])


def _is_in(error: FieldError, field: str) -> bool:
    return error.field.partition(".")[0] == field


def _shifted(error: FieldError, field: str, by: int) -> FieldError:
    """Return an error of one part with the place in the whole list; names of an object are the same in both."""
    head, _, rest = error.field.partition(".")
    position, dot, inner = rest.partition(".")
    if head != field or not is_number(position) or field == "nodes":
        return error
    return replace(error, field=f"{head}.{int(position) + by}{dot}{inner}")


def _in_batch(error: FieldError) -> FieldError:
    """Turn ``jobs.3.messages`` into field ``messages`` of job 3."""
    head, _, rest = error.field.partition(".")
    position, _, field = rest.partition(".")
    if head != "jobs" or not is_number(position):
        return error
    return FieldError(field or "payload", error.message, int(position))
