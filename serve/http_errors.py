"""Errors as HTTP answers: RFC 9457 problem bodies that also carry the specification's ``error`` field.

Every error of ``aiqueue.errors`` knows its HTTP status; whatever else is raised is a bug, and answers 500 without a
word about our insides.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from aiqueue.errors import AIQueueError, FieldError, ValidationError

logger = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:aiqueue:error:"
MAX_BAD_JOBS = 100  #: bad jobs of a batch that an answer names
MAX_ERRORS_PER_JOB = 10
MAX_TEXT = 2_000  #: characters of a message; the longest part of one is what the caller sent
MAX_FIELD = 200
_POLICY = 1008  # close code of RFC 6455


class UnsupportedMediaType(AIQueueError):
    """The body is not plain JSON, by its Content-Type or its Content-Encoding."""

    kind = "unsupported_media_type"
    http_status = 415


class BodyTimeout(AIQueueError):
    """The request's body did not arrive in time."""

    kind = "body_timeout"
    http_status = 408
    retryable = True


class FieldProblem(msgspec.Struct, omit_defaults=True):
    """One thing that is wrong with the input: where, what, and in which job of a batch (counted from 0)."""

    field: str
    message: str
    index: int | None = None


class Problem(msgspec.Struct, omit_defaults=True):
    """Why a request failed (RFC 9457)."""

    type: str  #: a URI for each ``code``
    title: str
    status: int
    detail: str
    instance: str  #: the path that was asked for
    error: str  #: the same as ``detail``: the specification's field
    code: str  #: stable, for programs
    retryable: bool  #: whether the same request may succeed later
    errors: list[FieldProblem] = []  #: of an invalid input, every field


_encode = msgspec.json.Encoder().encode


def problem_response(error: Exception, scope: Scope) -> Response:
    """Return ``error`` as the answer to ``scope``; one that is not of our tree is logged and kept inside."""
    if isinstance(error, HTTPException):
        return _answer(_routing_problem(error, scope), error.headers or {})
    if not isinstance(error, AIQueueError):
        logger.error("unexpected error in %s %s", scope.get("method"), _instance(scope), exc_info=error)
        error = AIQueueError("internal error; the server's log has the details")
    return _answer(_problem(error, scope), _headers(error))


async def handle_error(request: Request, error: Exception) -> Response:
    """Exception handler for Starlette."""
    return problem_response(error, request.scope)


async def refuse(error: AIQueueError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request or the opening of a WebSocket with ``error``, outside of the application."""
    if scope["type"] == "http":
        await problem_response(error, scope)(scope, receive, send)
        return
    websocket = WebSocket(scope, receive, send)
    if "websocket.http.response" in scope.get("extensions", {}):
        await websocket.send_denial_response(problem_response(error, scope))
    else:
        await websocket.close(_POLICY)


def _problem(error: AIQueueError, scope: Scope) -> Problem:
    text = _short(str(error), MAX_TEXT)
    return Problem(
        type=TYPE_PREFIX + error.kind,
        title=error.kind.replace("_", " ").capitalize(),
        status=error.http_status,
        detail=text,
        instance=_instance(scope),
        error=text,
        code=error.kind,
        retryable=bool(getattr(error, "retryable", False)),
        errors=_field_problems(error.errors) if isinstance(error, ValidationError) else [],
    )


def _routing_problem(error: HTTPException, scope: Scope) -> Problem:
    """Return the problem for an error of the framework: no such path, or no such method on it."""
    title = HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "_")
    text = f"{title}: {scope['method']} {_instance(scope)}"
    return Problem(TYPE_PREFIX + code, title, error.status_code, text, _instance(scope), text, code, retryable=False)


def _field_problems(errors: Sequence[FieldError]) -> list[FieldProblem]:
    """Return the errors that an answer shows: of the first ``MAX_BAD_JOBS`` bad jobs, some of each."""
    seen: Counter[int | None] = Counter()
    shown = []
    for error in errors:
        if error.index not in seen and len(seen) == MAX_BAD_JOBS:
            break
        seen[error.index] += 1
        if seen[error.index] <= MAX_ERRORS_PER_JOB:
            shown.append(FieldProblem(_short(error.field, MAX_FIELD), _short(error.message, MAX_TEXT), error.index))
    return shown


def _headers(error: AIQueueError) -> dict[str, str]:
    if error.http_status in (429, 503):
        return {"retry-after": str(max(1, math.ceil(getattr(error, "retry_after_s", 1.0))))}
    if error.http_status in (408, 413, 415):
        return {"connection": "close"}  # the rest of the body is not worth reading
    return {}


def _answer(problem: Problem, headers: Mapping[str, Any]) -> Response:
    return Response(_encode(problem), problem.status, {"cache-control": "no-store", **headers}, PROBLEM_JSON)


def _instance(scope: Scope) -> str:
    return quote(scope["path"][:MAX_FIELD], errors="replace")


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
