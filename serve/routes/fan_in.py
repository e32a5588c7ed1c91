"""``/ai/fan-in``: one more job, which gets the results of others."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from aiqueue.errors import ValidationError
from aiqueue.models import FanInBody
from serve.bodies import parse_body
from serve.callers import KEY_PARAMETER, caller_scope, idempotency_key
from serve.openapi import Operation, answer, json_body
from serve.routes.batches import orchestrator_of
from serve.routes.chains import REFUSED
from serve.routes.jobs import Accepted
from serve.routes.shared import json_response


async def submit_fan_in(request: Request) -> Response:
    """Submit a job that waits for others, whoever submitted them, and has their results in its prompt.

    `{{results}}` stands for all of them, `{{results[0].content}}` for one. `onError` says what becomes of it when one
    of them does not complete: `fail`, `skip` that one, or `include` its error. With an `Idempotency-Key` the request
    can be repeated safely for 24 hours: the answer is then the first job. `Location` is where to follow it.
    """
    key, scope = idempotency_key(request.headers), caller_scope(request.headers)
    body = parse_body(FanInBody, await request.body())
    try:
        job_id = await orchestrator_of(request).fan_in_job(
            [str(job_id) for job_id in body.job_ids],
            body.payload,
            body.options,
            on_error=body.on_error,
            idempotency_key=key,
            scope=scope,
        )
    except ValidationError as error:
        raise _in_body(error) from None
    location = f"{request.scope.get('root_path', '')}/ai/jobs/{job_id}"
    return json_response(Accepted(job_id, "blocked"), 202, {"location": location})


def _in_body(error: ValidationError) -> ValidationError:
    """Return ``error`` with the fields where they stand in the body. The queue names the job that lacks another."""
    return type(error)([replace(item, field=_place_of(item.field), index=None) for item in error.errors])


def _place_of(field: str) -> str:
    if field.startswith("job "):
        return "jobIds"
    return field if field.partition(".")[0] in ("job_ids", "options") else f"payload.{field}"


_LOCATION = {"Location": {"description": "path of the job", "schema": {"type": "string"}}}

OPERATIONS = (
    Operation(
        method="POST",
        path="/ai/fan-in",
        endpoint=submit_fan_in,
        name="submitFanIn",
        status=202,
        answer=answer(Accepted, "The job is on disk. It runs when the others have ended.", _LOCATION),
        failures=REFUSED,
        extra={**json_body(FanInBody), "parameters": [KEY_PARAMETER]},
    ),
)
