"""Jobs that wait for a time, in a heap by that time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState


class DueTimes:
    """SCHEDULED jobs, the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, JobRecord]] = []

    def __len__(self) -> int:
        return sum(1 for _ in self.jobs())

    def push(self, job: JobRecord) -> None:
        """Add a job whose ``run_at`` is set."""
        heapq.heappush(self._heap, (job.run_at, job.seq, job))

    def jobs(self) -> Iterator[JobRecord]:
        """Yield the waiting jobs, in no order."""
        return (job for run_at, _, job in self._heap if _still_waits(job, run_at))

    def next_at(self) -> float | None:
        """Return when the next job comes due."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> list[JobRecord]:
        """Remove and return the jobs whose time has come."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            run_at, _, job = heapq.heappop(self._heap)
            if _still_waits(job, run_at):
                taken.append(job)
        return taken

    def _drop_stale(self) -> None:
        while self._heap and not _still_waits(self._heap[0][2], self._heap[0][0]):
            heapq.heappop(self._heap)


def _still_waits(job: JobRecord, run_at: float) -> bool:
    """Tell an entry that counts from one left behind by a cancel or an earlier retry."""
    return job.state is JobState.SCHEDULED and job.run_at == run_at
