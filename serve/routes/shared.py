"""What the routes share: the client they speak to and how an answer is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from aiqueue.client.dead_letters import DeadLetterClient
from aiqueue.client.event_stream import EventStream
from aiqueue.client.headers import DEFAULT_SCOPE
from aiqueue.client.schedules import ScheduleClient
from aiqueue.errors import JobNotFound
from aiqueue.models import ChatPayload, CompletionPayload, EmbeddingPayload, JobOptions
from aiqueue.protocol import Welcome
from aiqueue.views import Cancellation, JobInfo, Stats, encode_json
from serve.joining import adapter_in
from serve.openapi import Operation

Payload = ChatPayload | CompletionPayload | EmbeddingPayload


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

    async def check_jobs(self, payloads: Iterable[Any]) -> None:
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

    async def ping(self) -> Welcome:
        """Return what the queue says of itself, if it answers. Raises QueueUnavailable."""


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
    """Return this process's client of the queue. Raises QueueUnavailable as long as it has found none."""
    return adapter_in(request.app.state)


def json_response(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``value`` as camelCase JSON. No answer of this API may be kept: jobs move."""
    return Response(encode_json(value), status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def parse_job_id(text: str) -> str:
    """Return an id in its one spelling. What is no UUID is no job's id, and needs no question."""
    if not text.isascii():  # UUID takes the digits of other scripts
        raise JobNotFound(text[:64])
    try:
        return str(UUID(text))
    except ValueError:
        raise JobNotFound(text[:64]) from None
