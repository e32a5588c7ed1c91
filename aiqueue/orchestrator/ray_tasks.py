"""Results as Ray ObjectRefs, and aggregation as a Ray task over them.

A ref is the return value of a task that reads the journal. So the driver never holds the data, and a ref that is lost
with its node is made again from the journal: Ray repeats the task. A caller whose owner of a ref died asks for another.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import cloudpickle

from aiqueue.client.ray_transport import RayTransport
from aiqueue.errors import AggregationFailed, FieldError, JobError, JobNotFound, ValidationError
from aiqueue.protocol import END_STATES
from aiqueue.results import JobResult
from aiqueue.views import JobInfo, job_info

_REFS = 4  #: of one fan-in: each costs a task, and many at once a process each
_SHARED = 5_000  #: results that one ref holds at most
_PAGE = 500  # jobs read in one call
_POLL_S = (0.02, 1.0)  # first and longest wait between looks at a job that has not ended

Value = JobResult | JobError


def result_ref(namespace: str, job_id: str) -> Any:
    """Return an ObjectRef of the job's JobResult; it is there when the job has ended. ``ray.get`` raises its error."""
    return _read_one.remote(namespace, job_id)


async def aggregate(
    namespace: str, job_ids: Sequence[str], function: Callable[[list[Any]], Any], *, on_error: str
) -> Any:
    """Run ``function`` in the cluster over the results of ended jobs, in their order; return what it returns.

    Raises ValidationError for a function that can't be pickled, AggregationFailed (with its traceback) if it raises.
    """
    try:
        cloudpickle.dumps(function)  # type: ignore[no-untyped-call]  # Ray has no types here
    except Exception as error:
        message = f"can't be sent to the cluster: {error}; use a function that holds no lock, file or connection"
        raise ValidationError([FieldError("fn", message)]) from error
    size = min(_SHARED, -(-len(job_ids) // _REFS))
    refs = [_read.remote(namespace, list(job_ids[at : at + size]), on_error) for at in range(0, len(job_ids), size)]
    kind, value = await _call.remote(function, *refs)
    if kind == "raised":
        raise AggregationFailed(value)
    return value


@ray.remote(num_cpus=0, max_retries=3)
def _read(namespace: str, job_ids: list[str], on_error: str) -> list[Value]:
    return asyncio.run(_values(namespace, job_ids, on_error))


@ray.remote(num_cpus=0, max_retries=3)
def _read_one(namespace: str, job_id: str) -> JobResult:
    return asyncio.run(_wait_for(namespace, job_id))


@ray.remote(num_cpus=1, max_retries=3)
def _call(function: Callable[[list[Any]], Any], *parts: list[Value]) -> tuple[str, Any]:
    try:
        return "returned", function([value for part in parts for value in part])
    except Exception:
        return "raised", f"the function of the fan-in raised:\n{traceback.format_exc()}"


async def _values(namespace: str, job_ids: list[str], on_error: str) -> list[Value]:
    transport = RayTransport(namespace)
    found: list[Value] = []
    for at in range(0, len(job_ids), _PAGE):
        part = job_ids[at : at + _PAGE]
        for job_id, view in zip(part, await transport.get_jobs(part), strict=True):
            if view is None:
                raise JobNotFound(job_id)
            value = _value_of(job_info(view))
            if isinstance(value, JobResult) or on_error == "include":
                found.append(value)
    return found


async def _wait_for(namespace: str, job_id: str) -> JobResult:
    transport, wait = RayTransport(namespace), _POLL_S[0]
    while True:
        (view,) = await transport.get_jobs([job_id])
        if view is None:
            raise JobNotFound(job_id)
        if view.status in END_STATES:
            break
        await asyncio.sleep(wait)
        wait = min(_POLL_S[1], wait * 1.5)
    value = _value_of(job_info(view))
    if isinstance(value, JobError):
        raise value
    return value


def _value_of(info: JobInfo) -> Value:
    if info.status == "completed" and info.result is not None:
        return info.result
    return info.exception() or JobError(f"job {info.job_id} ended as {info.status}")
