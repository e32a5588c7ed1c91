"""``/ai/batches/{id}``: how a batch stands, its results page by page, to stop, pause and retry it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from aiqueue.batch_views import BatchInfo, BatchResult
from aiqueue.errors import BatchNotFound, FieldError, ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.texts import BATCH_ID, is_number
from serve.callers import RETRY_KEY_PARAMETER, caller_scope, idempotency_key
from serve.openapi import JsonObject, Operation, answer
from serve.routes.shared import adapter_of, json_response
from serve.streams import StreamResponse

_PAGE, _MOST = 500, 1_000
_MAX_DIGITS = 9
_FORMATS = ("json", "jsonl")
_LINES = "application/x-ndjson"
UNKNOWN = "Nothing has this id, or it ended and its retention time is over."
NO_ANSWER = "The queue does not answer."


class ResultsPage(msgspec.Struct, rename="camel"):
    """Some results. ``after`` is the cursor of the next page; ``isLast``: there is none."""

    results: list[BatchResult]
    after: int
    is_last: bool


def orchestrator_of(request: Request) -> AsyncAIJobOrchestrator:
    """Return this process's orchestrator. Raises QueueUnavailable as long as there was no queue."""
    adapter_of(request)
    found: AsyncAIJobOrchestrator = request.app.state.orchestrator
    return found


def id_of(request: Request) -> str:
    """Return the id in the path. Raises BatchNotFound for what can't be one, without asking the queue."""
    text: str = request.path_params["batch_id"]
    try:
        return BATCH_ID.check("batch_id", text)
    except ValidationError:
        raise BatchNotFound(text[:64]) from None


def id_parameter(description: str) -> JsonObject:
    """Return the part of an operation that describes the id in its path."""
    schema: JsonObject = {"type": "string", "minLength": 1, "maxLength": BATCH_ID.most, "pattern": BATCH_ID.pattern}
    return {
        "parameters": [
            {"name": "batch_id", "in": "path", "required": True, "description": description, "schema": schema}
        ]
    }


async def get_batch(request: Request) -> Response:
    """Look at a batch: jobs by state, percent, rate, time left, the first errors. Its size does not matter."""
    return json_response(await orchestrator_of(request).get_batch_job_status(id_of(request)))


async def get_results(request: Request) -> Response:
    """Read what the jobs of a batch came to, a page at a time, or all that is there as lines.

    In the order of the batch up to the first job that has not ended; with `order=ended` as they end. `after` goes on
    where the last page or line stopped. A page may have fewer results than its `limit` where they are large. With
    `format=jsonl` each result is a line, and all of them come, streamed. With a `limit` too it is a page of
    lines, whose cursor is in `X-After`; `X-Is-Last` is `true` on the last page.
    """
    query = request.query_params
    batch_id, after = id_of(request), _number(request, "after", 0, 10**_MAX_DIGITS)
    limit = max(1, _number(request, "limit", _PAGE, _MOST))
    if query.get("order", "batch") not in ("batch", "ended"):
        raise ValidationError([FieldError("order", "must be batch or ended")])
    if query.get("format", "json") not in _FORMATS:
        raise ValidationError([FieldError("format", f"must be one of {', '.join(_FORMATS)}")])
    ordered, as_lines = query.get("order") != "ended", query.get("format") == "jsonl"
    if as_lines and "limit" not in query:
        first = await orchestrator_of(request).results_page(batch_id, after, ordered=ordered)  # or there is no batch
        lines = _all_lines(orchestrator_of(request), batch_id, after, first, ordered=ordered)
        return StreamResponse(lines, request.app.state.streams, _LINES)
    page = ResultsPage(*await orchestrator_of(request).results_page(batch_id, after, limit=limit, ordered=ordered))
    if not as_lines:
        return json_response(page)
    headers = {"cache-control": "no-store", "x-after": str(page.after), "x-is-last": str(page.is_last).lower()}
    return Response(_lines(page.results), 200, headers, _LINES)


async def cancel_batch(request: Request) -> Response:
    """Stop a batch, its running jobs too. What is done is kept."""
    return json_response(await orchestrator_of(request).cancel_batch_job(id_of(request)))


async def pause_batch(request: Request) -> Response:
    """Start no more jobs of a batch; those that run go on."""
    return json_response(await orchestrator_of(request).pause_batch_job(id_of(request)))


async def resume_batch(request: Request) -> Response:
    """Let a paused batch go on."""
    return json_response(await orchestrator_of(request).resume_batch_job(id_of(request)))


async def retry_batch(request: Request) -> Response:
    """Start new jobs in the place of those that failed; `retried` says how many."""
    key = idempotency_key(request.headers)
    scope = caller_scope(request.headers)
    info = await orchestrator_of(request).retry_failed(id_of(request), idempotency_key=key, scope=scope)
    return json_response(info)


def action(
    path: str, name: str, endpoint: Callable[[Request], Awaitable[Response]], of: JsonObject, **more: Any
) -> Operation:
    """Return a POST that does something to what its path names."""
    return Operation(
        method="POST",
        path=path,
        endpoint=endpoint,
        name=name,
        answer=answer(BatchInfo, "How it stands then."),
        failures={400: "It is not in a state for that.", 404: UNKNOWN, 415: "A body of another type.", 503: NO_ANSWER},
        extra=of,
        **more,
    )


def retry_action(path: str, name: str, of: JsonObject) -> Operation:
    """Return the POST that retries what its path names."""
    return action(
        f"{path}/retry-failed", name, retry_batch, {**of, "parameters": [*of["parameters"], RETRY_KEY_PARAMETER]}
    )


async def _all_lines(
    orchestrator: AsyncAIJobOrchestrator,
    batch_id: str,
    after: int,
    page: tuple[list[BatchResult], int, bool],
    *,
    ordered: bool,
) -> AsyncGenerator[bytes, None]:
    """Yield all results from ``page`` on as lines, and read no further than the reader takes them."""
    while True:
        results, cursor, is_last = page
        if results:
            yield _lines(results)
        if is_last or cursor == after:
            return
        after = cursor
        page = await orchestrator.results_page(batch_id, after, ordered=ordered)


def _lines(results: list[BatchResult]) -> bytes:
    return "".join(f"{result.to_json()}\n" for result in results).encode()


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not is_number(text) or len(text) > _MAX_DIGITS or int(text) > most:
        raise ValidationError([FieldError(name, f"must be a number from 0 to {most}")])
    return int(text)


_BATCH = id_parameter("the batch's id")
_QUERY: list[JsonObject] = [
    {
        "name": "after",
        "in": "query",
        "schema": {"type": "integer", "minimum": 0},
        "description": "the last page's cursor",
    },
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": _MOST}},
    {"name": "order", "in": "query", "schema": {"type": "string", "enum": ["batch", "ended"]}},
    {"name": "format", "in": "query", "schema": {"type": "string", "enum": list(_FORMATS)}},
]
_PATH = "/ai/batches/{batch_id}"

OPERATIONS = (
    Operation(
        method="GET",
        path=_PATH,
        endpoint=get_batch,
        name="getBatch",
        answer=answer(BatchInfo, "The batch as it is now."),
        failures={404: UNKNOWN, 503: NO_ANSWER},
        extra=_BATCH,
    ),
    Operation(
        method="GET",
        path=f"{_PATH}/results",
        endpoint=get_results,
        name="getBatchResults",
        answer=answer(ResultsPage, "A page of results; with `format=jsonl` lines with one result each."),
        failures={400: "A parameter is wrong.", 404: UNKNOWN, 503: f"{NO_ANSWER} Or too many streams are open."},
        extra={"parameters": [*_BATCH["parameters"], *_QUERY]},
    ),
    action(f"{_PATH}/cancel", "cancelBatch", cancel_batch, _BATCH),
    action(f"{_PATH}/pause", "pauseBatch", pause_batch, _BATCH),
    action(f"{_PATH}/resume", "resumeBatch", resume_batch, _BATCH),
    retry_action(_PATH, "retryBatch", _BATCH),
)
