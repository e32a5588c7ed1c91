"""What the routes share: the client they speak to, how a body is read and how an answer is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec
import pydantic
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from aiqueue.client.dead_letters import DeadLetterClient
from aiqueue.client.event_stream import EventStream
from aiqueue.client.headers import DEFAULT_SCOPE
from aiqueue.client.schedules import ScheduleClient
from aiqueue.errors import FieldError, JobNotFound, ValidationError
from aiqueue.models import MAX_BATCH_JOBS, BatchBody, ChatPayload, CompletionPayload, EmbeddingPayload, JobOptions
from aiqueue.texts import is_number
from aiqueue.validation import field_errors
from aiqueue.views import Cancellation, JobInfo, Stats, encode_json
from serve.openapi import Operation

BODY = "body"  #: the field's name where the body as a whole is wrong
_PART = 100  # jobs of a batch that are validated at once

Payload = ChatPayload | CompletionPayload | EmbeddingPayload
Model = TypeVar("Model", bound=pydantic.BaseModel)


class QueueAdapter(Protocol):
    """What the routes need of ``aiqueue.AsyncAIQueueAdapter``."""

    async def start(self) -> object:
        """Connect; called once, in the process that serves."""

    async def stop(self) -> object:
        """Disconnect."""

    async def submit_job(
        self, payload: Payload, options: JobOptions | None = None, *, scope: str = DEFAULT_SCOPE
    ) -> str:
        """Return the new job's id once the job is on disk. Its ValidationError names fields from the payload down."""

    async def submit_batch(
        self,
        payloads: Sequence[Payload],
        options: JobOptions | None = None,
        *,
        idempotency_key: str | None = None,
        scope: str = DEFAULT_SCOPE,
    ) -> tuple[str, list[str]]:
        """Return the ids of a batch and of its jobs once all of them are on disk; accepts all or none."""

    async def check_jobs(self, payloads: Sequence[Any]) -> None:
        """Submit nothing. Raises ValidationError with the index of every payload that would not be accepted."""

    async def get_job_status(self, job_id: str) -> JobInfo | None:
        """Return the job, if there is one."""

    async def cancel_job(self, job_id: str) -> Cancellation:
        """Cancel the job. Raises JobNotFound."""

    @property
    def schedules(self) -> ScheduleClient:
        """Jobs that come again."""

    @property
    def dead_letters(self) -> DeadLetterClient:
        """Jobs out of attempts."""

    async def get_system_stats(self) -> Stats:
        """Return the statistics of the queue and of the orchestrator."""

    def events(self, after: int | None = None, names: Collection[str] = (), job_id: str | None = None) -> EventStream:
        """Return the events after a cursor, one after another."""

    async def ping(self) -> object:
        """Return if the queue answers. Raises QueueUnavailable."""


class RawRoute(APIRoute):
    """A route whose endpoint takes the request and returns the response.

    FastAPI describes it and finds it, and leaves it alone: 30 µs less for each request than its own handler.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint itself."""
        return self.endpoint


class ExactRoutes:
    """ASGI middleware: calls the endpoints whose path has no parameter, without the framework's router.

    A submit then passes two layers where it passed seven, which is a tenth of all that a replica does for it.
    """

    def __init__(self, app: ASGIApp, *, operations: Iterable[Operation]) -> None:
        self._app = app
        self._endpoints = {(found.method, found.path): found.endpoint for found in operations if "{" not in found.path}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        endpoint = self._endpoints.get((scope["method"], path_of(scope))) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def path_of(scope: Scope) -> str:
    """Return the path below the one that the application is served at."""
    path: str = scope["path"]
    root = scope.get("root_path")
    return path.removeprefix(root) if root else path


def adapter_of(request: Request) -> QueueAdapter:
    """Return this process's client of the queue."""
    adapter: QueueAdapter = request.app.state.adapter
    return adapter


def json_response(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``value`` as camelCase JSON. No answer of this API may be kept: jobs move."""
    return Response(encode_json(value), status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def parse_job_id(text: str) -> str:
    """Return an id in its one spelling. What is no UUID is no job's id, and needs no question."""
    try:
        return str(UUID(text))
    except ValueError:
        raise JobNotFound(text[:64]) from None


def parse_body(model: type[Model], raw: bytes) -> Model:
    """Return ``raw`` validated, parsed once. Raises ValidationError, which says where and what."""
    try:
        body = model.model_validate_json(raw)
    except pydantic.ValidationError as error:
        found = field_errors(error, prefix=BODY)  # the prefix is left only where the body as a whole is wrong
        raise ValidationError([_in_batch(replace(e, field=e.field.removeprefix(f"{BODY}."))) for e in found]) from None
    _check_numbers(raw)
    return body


async def parse_batch(raw: bytes) -> BatchBody:
    """Return a batch validated as by ``parse_body``; the event loop turns after each part of its jobs."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        jobs = msgspec.json.decode(fields["jobs"], type=list[msgspec.Raw])
    except (msgspec.MsgspecError, KeyError, ValueError, RecursionError):
        return parse_body(BatchBody, raw)  # which says what is wrong
    if not _PART < len(jobs) <= MAX_BATCH_JOBS:
        return parse_body(BatchBody, raw)
    try:
        body = parse_body(BatchBody, msgspec.json.encode(fields | {"jobs": jobs[:_PART]}))
        found = list(body.jobs)
        for at in range(_PART, len(jobs), _PART):
            await asyncio.sleep(0)
            found += parse_body(BatchBody, msgspec.json.encode({"jobs": jobs[at : at + _PART]})).jobs
    except ValidationError:
        return parse_body(BatchBody, raw)  # which finds all that is wrong, and where
    return body.model_copy(update={"jobs": found})


def _check_numbers(raw: bytes) -> None:
    """Raise ValidationError for NaN, Infinity and 1e999, which pydantic lets pass where any JSON may stand.

    They could not be stored: JSON has no word for them. The second look costs a fifth of the first.
    """
    try:
        msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        where = str(error).split(" - at")[0]
        message = f"Invalid JSON: numbers must be finite and fit 64 bits; NaN and Infinity are none ({where})"
        raise ValidationError([FieldError(BODY, message)]) from None


def _in_batch(error: FieldError) -> FieldError:
    """Turn ``jobs.3.messages`` into field ``messages`` of job 3."""
    head, _, rest = error.field.partition(".")
    position, _, field = rest.partition(".")
    if head != "jobs" or not is_number(position):
        return error
    return FieldError(field or "payload", error.message, int(position))
