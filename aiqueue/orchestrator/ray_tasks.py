"""Results as Ray ObjectRefs, and aggregation as a Ray task over them.

A ref is what a task returns that reads the journal. So the driver never holds the data, and a ref that is lost with its
node is made again from the journal: Ray repeats the task. A caller whose owner of a ref died asks for another.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from aiqueue.client import paging
from aiqueue.client.look_ups import is_unread
from aiqueue.client.ray_transport import RayTransport
from aiqueue.errors import AggregationFailed, AIQueueError, FieldError, JobNotFound, ValidationError
from aiqueue.orchestrator.result_reader import ResultReader, Value, value_of
from aiqueue.results import JobResult

_REFS = 4  #: of one fan-in: each costs a task, and many at once a process each
_SHARED = 5_000  #: results that one ref holds at most
_PAGE = 500  # jobs read in one call
_READER: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 10_000}

_readers: dict[tuple[str, str], Any] = {}  #: by Ray job and namespace


def result_ref(namespace: str, job_id: str) -> Any:
    """Return an ObjectRef of the job's JobResult; it is there when the job has ended. ``ray.get`` raises its error."""
    ray_job = ray.get_runtime_context().get_job_id()
    key = ray_job, namespace
    reader: Any = _readers.get(key)
    if reader is None:
        for other in [other for other in _readers if other[0] != ray_job]:  # of a Ray that this process has left
            del _readers[other]
        reader = _readers[key] = ray.remote(**_READER)(_Reader).remote(namespace)
    return reader.read.remote(job_id)


async def aggregate(
    namespace: str, job_ids: Sequence[str], function: Callable[[list[Any]], Any], *, on_error: str
) -> Any:
    """Run ``function`` in the cluster over the results of ended jobs, in their order; return what it returns.

    Raises ValidationError for a function that can't be pickled, AggregationFailed (with its traceback) if it raises,
    ends its process or returns what can't be pickled. A call that is cancelled stops the task.
    """
    try:
        cloudpickle.dumps(function)  # type: ignore[no-untyped-call]  # Ray has no types here
    except Exception as error:
        message = f"can't be sent to the cluster: {error}; use a function that holds no lock, file or connection"
        raise ValidationError([FieldError("fn", message)]) from error
    size = min(_SHARED, -(-len(job_ids) // _REFS))
    refs = [_read.remote(namespace, list(job_ids[at : at + size]), on_error) for at in range(0, len(job_ids), size)]
    kind, value = await _ended(_call.remote(function, *refs))
    if kind == "raised":
        raise AggregationFailed(value)
    return value


async def _ended(call: Any) -> tuple[str, Any]:
    """Return what a call of the function came to. Ray's errors become ours."""
    try:
        kind, value = await call
    except asyncio.CancelledError:
        ray.cancel(call, force=True)  # its process: an interrupt does not reach a function that sleeps or computes in C
        raise
    except RayTaskError as error:
        if isinstance(error.cause, AIQueueError):
            raise error.cause from None
        raise AggregationFailed(f"what the function of the fan-in returned can't be sent back:\n{error}") from error
    except RayError as error:
        raise AggregationFailed(f"the fan-in's task did not come to its end: {error}") from error
    return kind, value


class _Reader(ResultReader):
    """One process for all refs of a program: a task for each job that has not ended would be a process for each."""

    def __init__(self, namespace: str) -> None:
        super().__init__(RayTransport(namespace))

    async def read(self, job_id: str) -> JobResult:
        """Return the result of a job when it has ended."""
        return await super().read(job_id)


@ray.remote(num_cpus=0, max_retries=3)
def _read(namespace: str, job_ids: list[str], on_error: str) -> list[Value]:
    return asyncio.run(_values(namespace, job_ids, on_error))


@ray.remote(num_cpus=1, max_retries=3)
def _call(function: Callable[[list[Any]], Any], *parts: list[Value]) -> tuple[str, Any]:
    try:
        return "returned", function([value for part in parts for value in part])
    except (Exception, SystemExit):
        return "raised", f"the function of the fan-in raised:\n{traceback.format_exc()}"


async def _values(namespace: str, job_ids: list[str], on_error: str) -> list[Value]:
    """Return what jobs came to. Raises, except for ``include``, RecordUnreadable for one that may have completed."""
    transport = RayTransport(namespace)
    found: list[Value] = []
    for at in range(0, len(job_ids), _PAGE):
        part = job_ids[at : at + _PAGE]
        for job_id, view in zip(part, await paging.get_jobs(transport, part), strict=True):
            if view is None:
                raise JobNotFound(job_id)
            value = value_of(view)
            if isinstance(value, JobResult) or on_error == "include":
                found.append(value)
            elif on_error == "fail" or view.status == "completed" or is_unread(view):
                raise value
    return found
