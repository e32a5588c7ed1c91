"""Jobs that wait for a time, and jobs whose time runs out, in heaps by that time.

What was said relative to acceptance (``delay``, ``expires_in``) is a time of the queue's clock, which never jumps. What
was said as a date (``run_at``, ``deadline``) is a time of the machine's clock, which people set: such times are kept as
they were said, in heaps of their own, and compared with what that clock shows now.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from aiqueue.engine.line import FEW
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.protocol import JobHeader

WAITING = frozenset({JobState.QUEUED, JobState.SCHEDULED, JobState.BLOCKED})  #: nobody runs it yet


def delayed_until(header: JobHeader) -> float:
    """Return until when the job is delayed, by the queue's clock; 0: it is not."""
    return header.created_at + header.delay_ms / 1e3 if header.delay_ms else 0.0


def runs_at(header: JobHeader) -> float:
    """Return when the job may run, by the machine's clock; 0: no date was said.

    Rows of releases before 0.2 have the end of the delay there too.
    """
    return 0.0 if header.run_at == delayed_until(header) else header.run_at


def expires_after(header: JobHeader) -> float:
    """Return until when the job must start, by the queue's clock; 0: whenever."""
    return header.created_at + header.expires_in_ms / 1e3 if header.expires_in_ms else 0.0


def expires_at(header: JobHeader) -> float:
    """Return until when the job must start, by the machine's clock; 0: whenever. Old rows as with ``runs_at``."""
    return 0.0 if header.expires_at == expires_after(header) else header.expires_at


class DueTimes:
    """SCHEDULED jobs by the time they may run, the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, JobRecord]] = []
        self._stale = 0  # entries of jobs that have left

    def __len__(self) -> int:
        """How many entries it holds, those of jobs that have left among them."""
        return len(self._heap)

    def push(self, job: JobRecord) -> None:
        """Add a job whose time is set."""
        heapq.heappush(self._heap, (job.run_at, job.seq, job))

    def leave(self) -> None:
        """Count out a job that is about to leave before its time: its state is SCHEDULED for the last time.

        Its entry stays until its time comes, or until there are more such entries than jobs that wait.
        """
        if self._stale > FEW and self._stale > len(self._heap) / 2:
            self._heap = [entry for entry in self._heap if _counts(entry[2], entry[0])]
            heapq.heapify(self._heap)
            self._stale = 0
        self._stale += 1

    def jobs(self) -> Iterator[JobRecord]:
        """Yield the waiting jobs, in no order."""
        return (job for at, _, job in self._heap if _counts(job, at))

    def next_at(self) -> float | None:
        """Return when the next job comes due."""
        while self._heap and not _counts(self._heap[0][2], self._heap[0][0]):
            heapq.heappop(self._heap)
            self._stale -= 1
        return self._heap[0][0] if self._heap else None

    def take(self, now: float, most: int) -> list[JobRecord]:
        """Remove and return up to ``most`` jobs whose time has come, the earliest first."""
        taken: list[JobRecord] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < most:
            at, _, job = heapq.heappop(self._heap)
            if _counts(job, at):
                taken.append(job)
            else:
                self._stale -= 1
        return taken


def _counts(job: JobRecord, at: float) -> bool:
    """Tell an entry that counts from one that a cancelled job has left behind."""
    return job.state is JobState.SCHEDULED and job.run_at == at


class JobTimes:
    """A time for some jobs, by id. Few jobs have one, so they are kept beside the records."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._times: dict[str, float] = {}

    def set(self, job_id: str, at: float) -> None:
        """Let the job come up at ``at``, unless it is dropped before."""
        self._times[job_id] = at
        heapq.heappush(self._heap, (at, job_id))

    def __len__(self) -> int:
        """How many entries it holds, those of jobs that were dropped among them."""
        return len(self._heap)

    def drop(self, job_id: str) -> None:
        """Forget the job's time. Its entry goes when it is the first, or when most are of such jobs."""
        if self._times.pop(job_id, None) is not None and len(self._heap) > 2 * len(self._times) + FEW:
            self._heap = [(at, waiting) for waiting, at in self._times.items()]
            heapq.heapify(self._heap)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._times

    def is_after(self, job_id: str, now: float) -> bool:
        """Return True if the job has a time, and it has not come."""
        return self._times.get(job_id, now) > now

    def times(self) -> dict[str, float]:
        """Return all times by job id."""
        return dict(self._times)

    def next_at(self) -> float | None:
        """Return the earliest time."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def is_over(self, job_id: str, now: float) -> bool:
        """Tell whether the job was to be started before ``now``."""
        return self._times.get(job_id, now + 1.0) <= now

    def any_over(self, now: float) -> bool:
        """Tell whether some job was to be started before ``now``."""
        return (at := self.next_at()) is not None and at <= now

    def take(self, now: float, most: int) -> list[str]:
        """Remove and return the ids of up to ``most`` jobs whose time is over."""
        taken: list[str] = []
        while len(taken) < most and self.any_over(now):
            _, job_id = heapq.heappop(self._heap)
            del self._times[job_id]
            taken.append(job_id)
        return taken
