"""``/ai/dead-letters``: jobs out of attempts, to look at, submit again and forget."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response

from aiqueue.client.dead_letters import FASTEST, SLOWEST
from aiqueue.errors import JOB_ERRORS, DeadLetterNotFound, FieldError, JobNotFound, ValidationError
from aiqueue.models import Items, ModelName
from aiqueue.strict_fields import number
from aiqueue.texts import is_number
from aiqueue.views import JobInfo
from serve.bodies import parse_body
from serve.openapi import JsonObject, Operation, answer, json_body, path_parameter
from serve.routes.shared import adapter_of, json_response, parse_job_id

MAX_IDS = 1_000  #: of one request
_MAX_PAGE, _PAGE = 1_000, 100
_MAX_TEXT = 256
_MAX_DIGITS = 18


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


class RedrivePatch(_Body):
    """What is changed of a job that is submitted again; absent fields stay as they were."""

    model: ModelName | None = Field(None, description="another model of the same provider")
    max_retries: int | None = Field(None, ge=0, le=10)

    _numbers = field_validator("max_retries", mode="before")(number)


class RedriveBody(RedrivePatch):
    """Dead letters to submit again, all with the same patch."""

    job_ids: Items[UUID] = Field(min_length=1, max_length=MAX_IDS)
    per_second: float | None = Field(
        None, ge=SLOWEST, le=FASTEST, description="start no more than so many a second; without it all at once"
    )

    _pace = field_validator("per_second", mode="before")(number)


class DeleteBody(_Body):
    """Dead letters to forget."""

    job_ids: Items[UUID] = Field(min_length=1, max_length=MAX_IDS)


class DeadLetterPage(msgspec.Struct, rename="camel"):
    """Dead letters, the newest first. With a ``nextCursor`` there may be more, even if this page is short."""

    dead_letters: list[JobInfo]
    next_cursor: str | None


class DeadLetter(msgspec.Struct, rename="camel"):
    """A dead letter with all its attempts, and its payload as it was submitted; null if its row is damaged."""

    job: JobInfo
    payload: msgspec.Raw


class Redrive(msgspec.Struct, rename="camel"):
    """A dead letter and the new job that repeats it."""

    dead_letter_id: str
    job_id: str


class Redriven(msgspec.Struct, rename="camel"):
    """The new jobs, in the order of the request. They are on disk; those that are to start later are scheduled."""

    redriven: list[Redrive]


class Deleted(msgspec.Struct, rename="camel"):
    """The dead letters that were there and are gone."""

    deleted: list[str]


async def list_dead_letters(request: Request) -> Response:
    """List jobs that are out of attempts, the newest first, with their attempts and without payloads.

    Filters go together. `nextCursor` of one page is the `cursor` of the next.
    """
    asked = _Query(request, {"reason", "model", "tag", "since", "limit", "cursor"})
    reason = asked.text("reason")
    if reason and reason not in JOB_ERRORS:
        raise _wrong("reason", f"unknown kind of error; there are: {', '.join(sorted(JOB_ERRORS))}")
    found, cursor = await adapter_of(request).dead_letters.page(
        reason=reason,
        model=asked.text("model"),
        tag=asked.text("tag"),
        since=asked.moment("since"),
        limit=asked.number("limit", _PAGE, least=1, most=_MAX_PAGE),
        cursor=asked.number("cursor", 0, least=0, most=10**_MAX_DIGITS) or None,
    )
    return json_response(DeadLetterPage(found, None if cursor is None else str(cursor)))


async def get_dead_letter(request: Request) -> Response:
    """Look at a dead letter: all its attempts, and the payload that was submitted; null if its row is damaged."""
    info, payload = await adapter_of(request).dead_letters.inspect(_id_of(request))
    return json_response(DeadLetter(info, msgspec.Raw(payload)))


async def redrive_one(request: Request) -> Response:
    """Submit a dead letter again, as a new job with `redrivenFrom`. The body may be empty or change something.

    The same dead letter with the same changes gives the same new job for 24 hours, so the request can be repeated.
    """
    job_id, raw = _id_of(request), await request.body()
    patch = parse_body(RedrivePatch, raw) if raw else RedrivePatch()
    return await _redrive(request, [job_id], patch, None)


async def redrive_many(request: Request) -> Response:
    """Submit dead letters again, as new jobs: none of them if one of the ids is no dead letter's.

    With `perSecond` they are accepted at once and start one after the other, no faster than that.
    """
    body = parse_body(RedriveBody, await request.body())
    return await _redrive(request, _texts(body.job_ids), body, body.per_second)


async def delete_one(request: Request) -> Response:
    """Forget a dead letter, its payload and its attempts."""
    job_id = _id_of(request)
    if not (gone := await adapter_of(request).dead_letters.delete([job_id])):
        raise DeadLetterNotFound(job_id)
    return json_response(Deleted(gone))


async def delete_many(request: Request) -> Response:
    """Forget dead letters. Ids that are no dead letters' are passed over; `deleted` says which ones are gone."""
    body = parse_body(DeleteBody, await request.body())
    return json_response(Deleted(await adapter_of(request).dead_letters.delete(_texts(body.job_ids))))


async def _redrive(request: Request, job_ids: list[str], patch: RedrivePatch, per_second: float | None) -> Response:
    started = await adapter_of(request).dead_letters.redrive(
        job_ids, model=patch.model, max_retries=patch.max_retries, per_second=per_second
    )
    pairs = zip(job_ids, started, strict=True)
    return json_response(Redriven([Redrive(dead_letter_id, job_id) for dead_letter_id, job_id in pairs]), 202)


def _id_of(request: Request) -> str:
    text = request.path_params["job_id"]
    try:
        return parse_job_id(text)
    except JobNotFound:
        raise DeadLetterNotFound(text[:64]) from None


def _texts(ids: Iterable[UUID]) -> list[str]:
    return list(dict.fromkeys(map(str, ids)))


def _wrong(field: str, message: str) -> ValidationError:
    return ValidationError([FieldError(field, message)])


class _Query:
    """The query of one request; a name that is not ``known`` is refused."""

    def __init__(self, request: Request, known: set[str]) -> None:
        self._given = request.query_params
        if unknown := set(self._given) - known:
            raise _wrong(min(unknown)[:64], f"unknown parameter; there are: {', '.join(sorted(known))}")

    def text(self, name: str) -> str:
        text = self._given.get(name, "")
        if len(text) > _MAX_TEXT:
            raise _wrong(name, f"must have at most {_MAX_TEXT} characters")
        return text

    def number(self, name: str, otherwise: int, *, least: int, most: int) -> int:
        text = self._given.get(name, "")
        if not text:
            return otherwise
        if not (is_number(text) and len(text) <= _MAX_DIGITS and least <= int(text) <= most):
            raise _wrong(name, f"must be a whole number from {least} to {most}")
        return int(text)

    def moment(self, name: str) -> datetime | None:
        text = self._given.get(name, "")
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped + of the zone arrives as a space
        except ValueError:
            raise _wrong(name, "must be a time in ISO 8601, as 2030-01-31T09:00:00Z") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)


def _parameter(name: str, description: str, kind: JsonObject) -> JsonObject:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": kind}


_TEXT: JsonObject = {"type": "string", "maxLength": _MAX_TEXT}
_FILTERS = [
    _parameter("reason", "kind of the error that ended them", {"type": "string", "enum": sorted(JOB_ERRORS)}),
    _parameter("model", "only this model's", _TEXT),
    _parameter("tag", "only those with this tag", _TEXT),
    _parameter("since", "only those that ended at this time or later; UTC if no zone is given", {"type": "string"}),
    _parameter("limit", "so many at most", {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE, "default": _PAGE}),
    _parameter("cursor", "`nextCursor` of the page before", {"type": "string"}),
]
_ID = path_parameter("job_id", "the dead letter's id")
_GONE = "No dead letter has this id: it ended otherwise, was deleted, or its retention time is over."
_NO_ANSWER = "The queue does not answer."
_BAD_BODY = "The body is not valid JSON, or fields of it are wrong: `errors` names them. Nothing was done."
_REFUSALS = {
    400: _BAD_BODY,
    408: "The body did not arrive in time.",
    413: "The body is over its size limit.",
    415: "The body is not plain JSON, by its Content-Type or Content-Encoding.",
    503: _NO_ANSWER,
}
_REDRIVE_REFUSALS = {
    **_REFUSALS,
    404: _GONE,
    422: "The dead letter was redriven with other changes in the last 24 hours.",
    429: "The queue is full.",
}

OPERATIONS = (
    Operation(
        method="GET",
        path="/ai/dead-letters",
        endpoint=list_dead_letters,
        name="listDeadLetters",
        answer=answer(DeadLetterPage, "A page of them."),
        failures={400: "A filter is wrong: `errors` names it.", 503: _NO_ANSWER},
        extra={"parameters": _FILTERS},
    ),
    Operation(
        method="POST",
        path="/ai/dead-letters/redrive",
        endpoint=redrive_many,
        name="redriveDeadLetters",
        status=202,
        answer=answer(Redriven, "The new jobs are on disk."),
        failures=_REDRIVE_REFUSALS,
        extra=json_body(RedriveBody),
    ),
    Operation(
        method="POST",
        path="/ai/dead-letters/delete",
        endpoint=delete_many,
        name="deleteDeadLetters",
        answer=answer(Deleted, "What is gone."),
        failures=_REFUSALS,
        extra=json_body(DeleteBody),
    ),
    Operation(
        method="GET",
        path="/ai/dead-letters/{job_id}",
        endpoint=get_dead_letter,
        name="getDeadLetter",
        answer=answer(DeadLetter, "The dead letter."),
        failures={404: _GONE, 503: _NO_ANSWER},
        extra=_ID,
    ),
    Operation(
        method="DELETE",
        path="/ai/dead-letters/{job_id}",
        endpoint=delete_one,
        name="deleteDeadLetter",
        answer=answer(Deleted, "It is gone."),
        failures={404: _GONE, 503: _NO_ANSWER},
        extra=_ID,
    ),
    Operation(
        method="POST",
        path="/ai/dead-letters/{job_id}/redrive",
        endpoint=redrive_one,
        name="redriveDeadLetter",
        status=202,
        answer=answer(Redriven, "The new job is on disk."),
        failures=_REDRIVE_REFUSALS,
        extra={**json_body(RedrivePatch, required=False), **_ID},
    ),
)
