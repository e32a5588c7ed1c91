"""``/ai/schedules``: jobs that come again by a cron line."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from aiqueue.client.schedule_models import ScheduleBody, ScheduleInfo, ScheduleRunInfo
from aiqueue.client.schedules import ScheduleClient
from aiqueue.errors import FieldError, ValidationError
from aiqueue.texts import is_number
from serve.bodies import parse_body
from serve.callers import KEY_PARAMETER, KEY_TAKEN, caller_scope, idempotency_key
from serve.openapi import JsonObject, Operation, answer, json_body
from serve.routes.shared import adapter_of, json_response

MAX_NEXT = 100
_DEFAULT_NEXT = 10

_BAD_BODY = "The body is not valid JSON, or fields of it are wrong: `errors` names them. Nothing was added."
_UNKNOWN = "No schedule has this id or name."
_NO_ANSWER = "The queue does not answer."


class ScheduleList(msgspec.Struct, rename="camel"):
    """All schedules, by name, each with its next run."""

    schedules: list[ScheduleInfo]


class NextRuns(msgspec.Struct, rename="camel"):
    """The coming runs of a schedule, in its time zone; none while it is paused."""

    next_runs: list[datetime]


class History(msgspec.Struct, rename="camel"):
    """The last runs of a schedule, the newest first."""

    runs: list[ScheduleRunInfo]


class Started(msgspec.Struct, rename="camel"):
    """A job was started beside the cron line: it is on disk."""

    job_id: str
    status: str


async def add_schedule(request: Request) -> Response:
    """Add a schedule. The answer comes when it is on disk, with the next runs: look whether they are what you meant.

    A cron line has five fields, or six with the seconds in front, or is `@daily` and its like. The same schedule under
    the same name again is the one that is there. With an `Idempotency-Key` the request can be repeated safely for 24
    hours, also after the schedule was removed: it does not come back by that.
    """
    key, scope = idempotency_key(request.headers), caller_scope(request.headers)
    body = parse_body(ScheduleBody, await request.body())
    try:
        info = await _schedules(request).put(body.payload, body, idempotency_key=key, scope=scope)
    except ValidationError as error:
        raise _in_body(error) from None
    location = f"{request.scope.get('root_path', '')}/ai/schedules/{info.schedule_id}"
    return json_response(info, 201, {"location": location})


async def list_schedules(request: Request) -> Response:
    """List all schedules by name, each with its next run and what became of the last one."""
    return json_response(ScheduleList(await _schedules(request).find()))


async def get_schedule(request: Request) -> Response:
    """Look at a schedule, by its id or its name."""
    return json_response(await _schedules(request).get(_chosen(request)))


async def remove_schedule(request: Request) -> Response:
    """Remove a schedule. The answer is what it was; jobs that it has started go on."""
    return json_response(await _schedules(request).remove(_chosen(request)))


async def pause_schedule(request: Request) -> Response:
    """Let a schedule start nothing until it is resumed."""
    return json_response(await _schedules(request).pause(_chosen(request)))


async def resume_schedule(request: Request) -> Response:
    """Let a schedule go on with its next tick. What passed during the pause is left out."""
    return json_response(await _schedules(request).resume(_chosen(request)))


async def run_schedule(request: Request) -> Response:
    """Start one job of a schedule now, beside its cron line; also while it is paused.

    With an `Idempotency-Key` the request can be repeated safely: the answer is then the first job.
    """
    key, scope = idempotency_key(request.headers), caller_scope(request.headers)
    job_id = await _schedules(request).run_now(_chosen(request), idempotency_key=key, scope=scope)
    return json_response(Started(job_id, "queued"), 202)


async def next_runs(request: Request) -> Response:
    """Tell the coming runs, 10 unless `count` (1 to 100) says otherwise."""
    text = request.query_params.get("count", str(_DEFAULT_NEXT))
    count = int(text) if is_number(text) and len(text) < 4 else 0
    if not 1 <= count <= MAX_NEXT:
        raise ValidationError([FieldError("count", f"must be a number from 1 to {MAX_NEXT}")])
    return json_response(NextRuns(await _schedules(request).next_runs(_chosen(request), count)))


async def history(request: Request) -> Response:
    """Tell what became of the last ticks, up to 50: fired, skipped, missed; and how their jobs ended."""
    return json_response(History(await _schedules(request).history(_chosen(request))))


def _schedules(request: Request) -> ScheduleClient:
    return adapter_of(request).schedules


def _chosen(request: Request) -> str:
    schedule: str = request.path_params["schedule"]
    return schedule


def _in_body(error: ValidationError) -> ValidationError:
    """Return ``error`` with the payload's fields where they stand in the body."""
    own = set(ScheduleBody.model_fields)
    return type(error)(
        [
            item if item.field.partition(".")[0] in own else replace(item, field=f"payload.{item.field}")
            for item in error.errors
        ]
    )


def _parameter(name: str, where: str, description: str, schema: JsonObject) -> JsonObject:
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


_SCHEDULE = _parameter("schedule", "path", "the schedule's id or name", {"type": "string"})
_ONE: JsonObject = {"parameters": [_SCHEDULE]}
_COUNT = _parameter("count", "query", "how many", {"type": "integer", "minimum": 1, "maximum": MAX_NEXT})
_LOCATION = {"Location": {"description": "path of the schedule", "schema": {"type": "string"}}}
_AFTER = answer(ScheduleInfo, "The schedule as it is now.")
_REFUSALS = {404: _UNKNOWN, 503: _NO_ANSWER}
_PATH = "/ai/schedules/{schedule}"

OPERATIONS = (
    Operation(
        method="POST",
        path="/ai/schedules",
        endpoint=add_schedule,
        name="addSchedule",
        status=201,
        answer=answer(ScheduleInfo, "The schedule is on disk.", _LOCATION),
        failures={
            400: _BAD_BODY,
            404: "It was added under this idempotency key, and removed since.",
            408: "The body did not arrive in time.",
            409: "Another schedule has this name.",
            413: "The body or the payload is over its size limit.",
            415: "The body is not plain JSON, by its Content-Type or Content-Encoding.",
            422: KEY_TAKEN,
            503: _NO_ANSWER,
        },
        extra={**json_body(ScheduleBody), "parameters": [KEY_PARAMETER]},
    ),
    Operation(
        method="GET",
        path="/ai/schedules",
        endpoint=list_schedules,
        name="listSchedules",
        answer=answer(ScheduleList, "All schedules."),
        failures={503: _NO_ANSWER},
    ),
    Operation(
        method="GET",
        path=_PATH,
        endpoint=get_schedule,
        name="getSchedule",
        answer=_AFTER,
        failures=_REFUSALS,
        extra=_ONE,
    ),
    Operation(
        method="DELETE",
        path=_PATH,
        endpoint=remove_schedule,
        name="removeSchedule",
        answer=answer(ScheduleInfo, "The schedule as it was."),
        failures=_REFUSALS,
        extra=_ONE,
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/pause",
        endpoint=pause_schedule,
        name="pauseSchedule",
        answer=_AFTER,
        failures=_REFUSALS,
        extra=_ONE,
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/resume",
        endpoint=resume_schedule,
        name="resumeSchedule",
        answer=_AFTER,
        failures={400: "Its cron line or time zone is not known to the queue.", **_REFUSALS},
        extra=_ONE,
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/run",
        endpoint=run_schedule,
        name="runSchedule",
        status=202,
        answer=answer(Started, "The job is on disk."),
        failures={
            400: "The idempotency key is too long, or empty.",
            409: "The idempotency key started a job of another schedule.",
            429: "The queue is full, or too many runs have not ended.",
            **_REFUSALS,
        },
        extra={"parameters": [_SCHEDULE, KEY_PARAMETER]},
    ),
    Operation(
        method="GET",
        path=f"{_PATH}/next",
        endpoint=next_runs,
        name="nextRuns",
        answer=answer(NextRuns, "The coming runs."),
        failures={400: "`count` is no number from 1 to 100.", **_REFUSALS},
        extra={"parameters": [_SCHEDULE, _COUNT]},
    ),
    Operation(
        method="GET",
        path=f"{_PATH}/history",
        endpoint=history,
        name="scheduleHistory",
        answer=answer(History, "The last runs."),
        failures=_REFUSALS,
        extra=_ONE,
    ),
)
