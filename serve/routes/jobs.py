"""``/ai/jobs``: submit one job or thousands, look at one, cancel it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from aiqueue.errors import FieldError, JobNotFound, ValidationError
from aiqueue.models import BatchBody, JobOptions, SubmitBody
from aiqueue.views import Cancellation, JobInfo
from serve.bodies import parse_batch, parse_body
from serve.body_json import decode
from serve.callers import KEY_PARAMETER, KEY_TAKEN, caller_scope, idempotency_key
from serve.openapi import Operation, answer, json_body, path_parameter
from serve.routes.shared import QueueAdapter, adapter_of, json_response, parse_job_id

_BAD_BODY = "The body is not valid JSON, or fields of it are wrong: `errors` names them. Nothing was enqueued."
_TOO_LARGE = "The body or a payload is over its size limit. Nothing was enqueued."
_NOT_JSON = "The body is not plain JSON, by its Content-Type or Content-Encoding."
_DOWN = "The queue does not answer. A submit may have been accepted all the same: send it again with its `jobId`."
_FULL = "The queue is full."
_SLOW_BODY = "The body did not arrive in time."
_NO_ANSWER = "The queue does not answer."
_UNKNOWN = "No job has this id, or it ended and its retention time is over."


class Accepted(msgspec.Struct, rename="camel"):
    """A job was accepted: it is on disk. ``status`` is a new job's; ask for the job to see how it is now."""

    job_id: str
    status: str


class BatchAccepted(msgspec.Struct, rename="camel"):
    """All jobs of a batch were accepted: they are on disk. ``jobIds`` are in the order of the request."""

    batch_id: str
    status: str
    total: int
    job_ids: list[str]


async def submit_job(request: Request) -> Response:
    """Submit a job. The answer comes when the job is on disk; `Location` is where to follow it.

    `priority` may stand beside the payload or in `options`. With a `jobId` of your own in `options` a submit can be
    repeated safely: the second one of the same job is the first. So it can with an `Idempotency-Key`, for 24 hours.
    Callers are told apart by `Authorization` or `X-API-Key`: the same key of two callers makes two jobs.
    """
    body = parse_body(SubmitBody, await request.body())
    options, scope = _with_key(request, _options(body)), caller_scope(request.headers)
    try:
        job_id = await adapter_of(request).submit_job(body.payload, options, scope=scope)
    except ValidationError as error:
        raise _in_payload(error) from None
    location = f"{request.scope.get('root_path', '')}/ai/jobs/{job_id}"
    return json_response(Accepted(job_id, "queued"), 202, {"location": location})


async def submit_batch(request: Request) -> Response:
    """Submit up to 10,000 jobs that share their options: all of them are accepted, or none.

    If jobs are wrong, `errors` has the index of every one of them (the first 100). With an `Idempotency-Key` the
    request can be repeated safely for 24 hours: the answer is then the first batch and its jobs.
    """
    key = idempotency_key(request.headers)
    adapter, raw = adapter_of(request), await request.body()
    try:
        body = await parse_batch(raw)
    except ValidationError as error:
        raise await _all_bad_jobs(adapter, raw, error) from None
    batch_id, job_ids = await adapter.submit_batch(
        body.jobs, body.options, idempotency_key=key, scope=caller_scope(request.headers)
    )
    return json_response(BatchAccepted(batch_id, "processing", len(job_ids), job_ids), 202)


async def get_job(request: Request) -> Response:
    """Look at a job: its status, and its result or error once it has ended."""
    job_id = parse_job_id(request.path_params["job_id"])
    info = await adapter_of(request).get_job_status(job_id)
    if info is None:
        raise JobNotFound(job_id)
    return json_response(info)


async def cancel_job(request: Request) -> Response:
    """Cancel a job. A waiting one is cancelled at once, a running one as soon as its worker has stopped it.

    `cancelled` is false if the job had ended before; `status` is its state after the call.
    """
    return json_response(await adapter_of(request).cancel_job(parse_job_id(request.path_params["job_id"])))


_LOCATION = {"Location": {"description": "path of the job", "schema": {"type": "string"}}}
_ID = path_parameter("job_id", "the job's id")
_REFUSALS = {408: _SLOW_BODY, 413: _TOO_LARGE, 415: _NOT_JSON, 429: _FULL, 503: _DOWN}

OPERATIONS = (
    Operation(
        method="POST",
        path="/ai/jobs",
        endpoint=submit_job,
        name="submitJob",
        status=202,
        answer=answer(Accepted, "The job is on disk.", _LOCATION),
        failures={
            400: _BAD_BODY,
            409: "The `jobId` belongs to a job with another body.",
            422: KEY_TAKEN,
            **_REFUSALS,
        },
        extra={**json_body(SubmitBody), "parameters": [KEY_PARAMETER]},
    ),
    Operation(
        method="POST",
        path="/ai/jobs/batch",
        endpoint=submit_batch,
        name="submitBatch",
        status=202,
        answer=answer(BatchAccepted, "All jobs are on disk."),
        failures={400: _BAD_BODY, 422: KEY_TAKEN, **_REFUSALS},
        extra={**json_body(BatchBody), "parameters": [KEY_PARAMETER]},
    ),
    Operation(
        method="GET",
        path="/ai/jobs/{job_id}",
        endpoint=get_job,
        name="getJob",
        answer=answer(JobInfo, "The job as it is now."),
        failures={404: _UNKNOWN, 503: _NO_ANSWER},
        extra=_ID,
    ),
    Operation(
        method="DELETE",
        path="/ai/jobs/{job_id}",
        endpoint=cancel_job,
        name="cancelJob",
        answer=answer(Cancellation, "What became of the job."),
        failures={404: _UNKNOWN, 503: _NO_ANSWER},
        extra=_ID,
    ),
)


def _options(body: SubmitBody) -> JobOptions:
    """Return the job's options with the priority that stands beside the payload."""
    try:
        return body.options.at_level(body.priority)
    except ValueError as error:
        raise ValidationError([FieldError("priority", str(error))]) from None


def _with_key(request: Request, options: JobOptions) -> JobOptions:
    """Return the options with the key that the header gives."""
    key = idempotency_key(request.headers)
    if key is None:
        return options
    if options.idempotency_key not in (None, key):
        raise ValidationError([FieldError("Idempotency-Key", "differs from options.idempotencyKey: give one of them")])
    return options.model_copy(update={"idempotency_key": key})


def _in_payload(error: ValidationError) -> ValidationError:
    """Return ``error`` with the payload's fields where they stand in the body."""
    return type(error)(
        [item if _in_body(item) else replace(item, field=f"payload.{item.field}") for item in error.errors]
    )


def _in_body(error: FieldError) -> bool:
    return error.field == "payload" or error.field.startswith("options.")


async def _all_bad_jobs(adapter: QueueAdapter, raw: bytes, error: ValidationError) -> ValidationError:
    """Return ``error`` with the jobs added whose form is right and which the queue would refuse: callers want all."""
    if all(item.index is None for item in error.errors):
        return error
    try:
        jobs = decode(decode(raw, dict[str, msgspec.Raw])["jobs"], list[msgspec.Raw])
        await adapter.check_jobs(map(decode, jobs))  # each is decoded when its turn comes
    except ValidationError as found:
        if all(item.index is not None for item in found.errors):
            return ValidationError([*(item for item in error.errors if item.index is None), *found.errors])
    return error  # the form is worse than it seemed
