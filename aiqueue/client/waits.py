"""The jobs that a process waits for, and what it knows of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiqueue.protocol import JobHeader, JobView
from aiqueue.views import JobInfo


class Waits:
    """Futures of the ends of jobs. What is noted of a job is forgotten with its last wait."""

    def __init__(self) -> None:
        self._futures: dict[str, list[asyncio.Future[JobInfo]]] = {}
        self.headers: dict[str, JobHeader] = {}  #: of those that were looked up
        self.whole: set[str] = set()  #: to be shown with their headers
        self.foreign: set[str] = set()  #: submitted by other clients
        self.unsealed: set[str] = set()  #: of batches that were still being sent when they were looked up
        self._accepted: set[str] = set()  # on the queue's disk since their submit
        self._missed: set[str] = set()  # not found by a look-up: not accepted yet, or deleted by then

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._futures

    def __iter__(self) -> Iterator[str]:
        return iter(self._futures)

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, job_id: str) -> asyncio.Future[JobInfo]:
        """Wait for the end of a job."""
        future: asyncio.Future[JobInfo] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(job_id, []).append(future)
        return future

    def drop(self, job_id: str, future: asyncio.Future[JobInfo]) -> None:
        """Wait no more."""
        futures = self._futures.get(job_id, [])
        if future in futures:
            futures.remove(future)
        if not futures:
            self._end(job_id)

    def resolve(self, info: JobInfo) -> None:
        """Give every wait for a job its end."""
        for future in self._end(info.job_id):
            if not future.done():
                future.set_result(info)

    def fail(self, job_id: str, error: Exception) -> None:
        """Give every wait for a job this error."""
        for future in self._end(job_id):
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: whoever made it may not have come to await it

    def show(self, view: JobView) -> None:
        """Note how a job that has not ended is."""
        if view.id in self._futures:
            self.headers[view.id] = view.header
            waits_for_the_rest = view.status == "blocked" and not view.header.needs
            (self.unsealed.add if waits_for_the_rest else self.unsealed.discard)(view.id)

    def is_known(self, job_id: str) -> bool:
        """Return True if the queue has had the job."""
        return job_id in self.headers or job_id in self._accepted

    def accept(self, job_id: str) -> bool:
        """Note that a job was on the queue's disk; return True, once, if a look-up missed it before."""
        if job_id in self._futures:
            self._accepted.add(job_id)
        missed = job_id in self._missed
        self._missed.discard(job_id)
        return missed

    def miss(self, job_id: str) -> None:
        """Note that a look-up did not find a job."""
        self._missed.add(job_id)

    def _end(self, job_id: str) -> list[asyncio.Future[JobInfo]]:
        self.headers.pop(job_id, None)
        self.whole.discard(job_id)
        self.foreign.discard(job_id)
        self.unsealed.discard(job_id)
        self._accepted.discard(job_id)
        self._missed.discard(job_id)
        return self._futures.pop(job_id, [])
