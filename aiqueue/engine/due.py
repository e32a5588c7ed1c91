"""Jobs that wait for a time, in a heap by that time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState

WAITING = frozenset({JobState.QUEUED, JobState.SCHEDULED})  #: nobody runs it yet


class DueTimes:
    """SCHEDULED jobs by the time they may run, the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, JobRecord]] = []

    def __len__(self) -> int:
        return sum(1 for _ in self.jobs())

    def push(self, job: JobRecord) -> None:
        """Add a job whose time is set."""
        heapq.heappush(self._heap, (self._time(job), job.seq, job))

    def jobs(self) -> Iterator[JobRecord]:
        """Yield the waiting jobs, in no order."""
        return (job for at, _, job in self._heap if self._counts(job, at))

    def next_at(self) -> float | None:
        """Return when the next job comes due."""
        while self._heap and not self._counts(self._heap[0][2], self._heap[0][0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> list[JobRecord]:
        """Remove and return the jobs whose time has come."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            at, _, job = heapq.heappop(self._heap)
            if self._counts(job, at):
                taken.append(job)
        return taken

    def _time(self, job: JobRecord) -> float:
        return job.run_at

    def _counts(self, job: JobRecord, at: float) -> bool:
        """Tell an entry that counts from one left behind by a cancel or an earlier retry."""
        return job.state is JobState.SCHEDULED and job.run_at == at


class StartDeadlines(DueTimes):
    """Waiting jobs by the time until which they must have been started."""

    def push(self, job: JobRecord) -> None:
        """Add a job, if it has such a deadline."""
        if job.expires_at:
            super().push(job)

    def _time(self, job: JobRecord) -> float:
        return job.expires_at

    def _counts(self, job: JobRecord, at: float) -> bool:
        return job.state in WAITING
