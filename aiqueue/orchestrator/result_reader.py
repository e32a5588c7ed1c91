"""Waiting for the results of many jobs at once, with one question to the queue for all of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiqueue.client import given, paging
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import JobError, JobNotFound
from aiqueue.protocol import END_STATES, JobView
from aiqueue.results import JobResult
from aiqueue.views import readable_info

Value = JobResult | JobError

_LOOK_S = (0.02, 0.5)  #: first and longest wait between looks at what has not ended


class ResultReader:
    """Reads results as jobs end. However many wait, there is one look at a time."""

    def __init__(self, transport: QueueTransport) -> None:
        self._transport = transport
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._wait = _LOOK_S[0]

    async def read(self, job_id: str) -> JobResult:
        """Return the result of a job when it has ended. Raises the JobError that ended it, JobNotFound.

        Raises ValidationError for what is no id: all who wait share a look, which it would fail.
        """
        job_id = given.job_id(job_id)
        ended = self._waiting.get(job_id)
        if ended is None:
            ended = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        self._wait = _LOOK_S[0]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(ended)
        (view,) = await self._transport.get_jobs([job_id])
        if view is None:
            raise JobNotFound(job_id)
        value = value_of(view)
        if isinstance(value, JobError):
            raise value
        return value

    async def _look(self) -> None:
        """Look until nobody waits. What is wrong with the queue is told to all who do."""
        try:
            while self._waiting:
                ids = list(self._waiting)
                for job_id, state in zip(ids, await paging.get_states(self._transport, ids), strict=True):
                    if state in END_STATES or not state:
                        self._waiting.pop(job_id).set_result(None)
                if self._waiting:
                    await asyncio.sleep(self._wait)
                    self._wait = min(_LOOK_S[1], self._wait * 1.5)
        except Exception as error:
            waiting, self._waiting = self._waiting, {}
            for future in waiting.values():
                with suppress(asyncio.InvalidStateError):
                    future.set_exception(error)


def value_of(view: JobView) -> Value:
    """Return the result of a job that has ended, or the error that it ended with, or that its row can't be read."""
    info = readable_info(view)
    if info.status == "completed" and info.result is not None:
        return info.result
    return info.exception() or JobError(f"job {info.job_id} ended as {info.status}")
