"""``/ai/events`` and ``/ai/jobs/{id}/events``: what happens to jobs, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from aiqueue.client.event_stream import EventStream, Gap
from aiqueue.client.listeners import EVENTS, AnyEvent, JobEvent
from aiqueue.errors import FieldError, JobNotFound, QueueUnavailable, ValidationError
from aiqueue.protocol import END_STATES
from aiqueue.texts import is_number
from aiqueue.views import JobInfo, encode_json
from serve.callers import only_value
from serve.event_views import event_data, event_name
from serve.openapi import JsonObject, Operation, path_parameter
from serve.routes.shared import QueueAdapter, adapter_of, parse_job_id
from serve.streams import EventResponse, StreamSlots

HEARTBEAT_S = 15.0
_RETRY_S = 0.3
_MAX_DIGITS = 18
_HELLO = b"retry: 1000\n\n"  # when a browser comes back after a cut, in milliseconds
_HEARTBEAT = b":\n\n"
_END_NAMES = {state: f"job:{state.replace('_', '-')}" for state in END_STATES}


async def stream_events(request: Request) -> Response:
    """Follow all jobs, gates and pools of workers: server-sent events; `id` is an event's number, `event` its name.

    A stream that was cut goes on where it was with the `Last-Event-ID` header (browsers send it by themselves) or
    `?after=`. `event: gap` means that the server no longer has some of them. A comment comes every 15 seconds.
    """
    stream = adapter_of(request).events(after=_cursor(request), names=_names(request))
    await stream.open()
    return EventResponse(_all_pieces(stream), _slots(request), endless=True)


async def stream_job(request: Request) -> Response:
    """Follow one job until it has ended; its stream ends with it. One that has ended before shows its end at once.

    Coming back with the `id` of the end answers 204: there is no more, and a browser stops asking.
    """
    adapter, job_id, after = adapter_of(request), parse_job_id(request.path_params["job_id"]), _cursor(request)
    stream = adapter.events(after=after, job_id=job_id)
    await stream.open()  # before the look at the job: what happens in between is then an event
    info = await adapter.get_job_status(job_id)
    if info is None:
        raise JobNotFound(job_id)
    first: list[AnyEvent | Gap] = []
    if info.status in END_STATES:
        if after is None:
            first = [present(info, await stream.newest())]
        elif not (first := await stream.backlog()):
            return Response(None, 204, {"cache-control": "no-store"})
    return EventResponse(_job_pieces(adapter, stream, job_id, first), _slots(request))


def present(info: JobInfo, number: int) -> JobEvent:
    """Return the end of a job as the event that told of it, for those who come later or missed it."""
    return JobEvent(
        name=_END_NAMES[info.status],
        number=number,
        job_id=info.job_id,
        job=info,
        result=info.result,
        retry_count=info.retry_count,
        sla_compliance=info.sla_compliance,
    )


async def _all_pieces(stream: EventStream) -> AsyncGenerator[bytes, None]:
    try:
        yield _HELLO
        while True:
            items = await stream.poll(HEARTBEAT_S)
            for item in items:
                yield _piece(item)
            if not items:
                yield _HEARTBEAT
    finally:
        await stream.aclose()


async def _job_pieces(
    adapter: QueueAdapter, stream: EventStream, job_id: str, first: Sequence[AnyEvent | Gap]
) -> AsyncGenerator[bytes, None]:
    items = list(first)
    try:
        yield _HELLO
        while True:
            for item in items:
                yield _piece(item)
                if isinstance(item, Gap):  # the end may be what is missing
                    info = await _look(adapter, job_id)
                    if info is None:
                        return
                    if info.status in END_STATES:
                        yield _piece(present(info, await _newest(stream, item.number)))
                        return
                elif isinstance(item, JobEvent) and item.job.status in END_STATES:
                    return
            items = await stream.poll(HEARTBEAT_S)
            if not items:
                yield _HEARTBEAT
    finally:
        await stream.aclose()


async def _look(adapter: QueueAdapter, job_id: str) -> JobInfo | None:
    while True:
        try:
            return await adapter.get_job_status(job_id)
        except QueueUnavailable:
            await asyncio.sleep(_RETRY_S)


async def _newest(stream: EventStream, otherwise: int) -> int:
    try:
        return await stream.newest()
    except QueueUnavailable:
        return otherwise


def _piece(item: AnyEvent | Gap) -> bytes:
    """Return one event on the wire. Its JSON has no line breaks."""
    data = encode_json(event_data(item))
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (item.number, event_name(item).encode(), data)


def _slots(request: Request) -> StreamSlots:
    slots: StreamSlots = request.app.state.streams
    return slots


def _cursor(request: Request) -> int | None:
    """Return the number of the last event that the client has; None if it is new."""
    header = only_value(request.headers, "Last-Event-ID") or ""  # newer than the address, which a browser repeats
    text = header or request.query_params.get("after", "")
    if not text:
        return None
    if not (is_number(text) and len(text) <= _MAX_DIGITS):
        where = "Last-Event-ID" if header else "after"
        raise ValidationError([FieldError(where, "must be the number of an event, as in the `id` of this stream")])
    return int(text)


def _names(request: Request) -> list[str]:
    names = [name for name in request.query_params.get("names", "").split(",") if name]
    if unknown := set(names) - EVENTS:
        message = f"unknown event {min(unknown)[:64]!r}; there are: {', '.join(sorted(EVENTS))}"
        raise ValidationError([FieldError("names", message)])
    return names


def _parameter(name: str, place: str, description: str) -> JsonObject:
    kind = "string" if name == "names" else "integer"
    return {"name": name, "in": place, "required": False, "description": description, "schema": {"type": kind}}


_ANSWER = {
    "description": "The events, as they happen.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_CURSORS = [
    _parameter("after", "query", "number of the last event seen; without one the stream begins now"),
    _parameter("Last-Event-ID", "header", "the same; counts before `after`"),
]
_BAD = "The cursor is no number, or a name is unknown."
_BUSY = "The queue does not answer, or too many streams are open."
_JOB_ID = path_parameter("job_id", "the job's id")["parameters"]

OPERATIONS = (
    Operation(
        method="GET",
        path="/ai/events",
        endpoint=stream_events,
        name="streamEvents",
        answer=_ANSWER,
        failures={400: _BAD, 503: _BUSY},
        extra={"parameters": [*_CURSORS, _parameter("names", "query", "names of events, with commas; all if absent")]},
    ),
    Operation(
        method="GET",
        path="/ai/jobs/{job_id}/events",
        endpoint=stream_job,
        name="streamJob",
        answer=_ANSWER,
        failures={400: _BAD, 404: "No job has this id.", 503: _BUSY},
        extra={"parameters": [*_JOB_ID, *_CURSORS]},
    ),
)
