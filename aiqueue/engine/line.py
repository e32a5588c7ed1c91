"""Jobs of one level in the order of service: by SLA deadline, then by acceptance.

New jobs come in that order, so they stand in a queue where the first is found and taken at the same cost whether a
thousand wait or a million. Only those that come back to an old place go through a heap.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState

Entry = tuple[float, int, JobRecord]  #: SLA deadline, seq, job

FEW = 64  #: entries of jobs that have left, not worth the work of going through all
_AT_THE_FRONT = 2  # entries looked at whenever a job leaves
_QUEUED = JobState.QUEUED


class Line:
    """One level of one lane.

    What leaves without being taken stays until it comes to the front, or until there is more of that than of jobs that
    wait: a line that does not move (its gate is closed) must not keep all that was ever cancelled in it.
    """

    __slots__ = ("_came_back", "_in_order", "_stale")

    def __init__(self) -> None:
        self._in_order: deque[Entry] = deque()
        self._came_back: list[Entry] = []
        self._stale = 0  # entries of jobs that have left

    def __len__(self) -> int:
        """How many entries it holds, those of jobs that have left among them."""
        return len(self._in_order) + len(self._came_back)

    def push(self, entry: Entry) -> None:
        """Add a job whose state is QUEUED."""
        if not self._in_order or self._in_order[-1] < entry:
            self._in_order.append(entry)
        else:
            heapq.heappush(self._came_back, entry)

    def leave(self) -> None:
        """Count out a job that is about to leave without being taken: its state is QUEUED for the last time."""
        # Jobs that expire leave in order: dropping them at the front spares a pass over all entries.
        for _ in range(_AT_THE_FRONT):
            if self._in_order and self._in_order[0][2].state is not _QUEUED:
                self._in_order.popleft()
                self._stale -= 1
        if self._stale > FEW and self._stale > len(self) / 2:
            self._in_order = deque(entry for entry in self._in_order if entry[2].state is _QUEUED)
            self._came_back = [entry for entry in self._came_back if entry[2].state is _QUEUED]
            heapq.heapify(self._came_back)
            self._stale = 0
        self._stale += 1

    def first(self) -> Entry | None:
        """Return the job that is to be served next; None if there is none."""
        in_order, came_back = self._in_order, self._came_back
        while in_order and in_order[0][2].state is not _QUEUED:
            in_order.popleft()
            self._stale -= 1
        while came_back and came_back[0][2].state is not _QUEUED:
            heapq.heappop(came_back)
            self._stale -= 1
        if not came_back:
            return in_order[0] if in_order else None
        return min(in_order[0], came_back[0]) if in_order else came_back[0]

    def pop(self) -> JobRecord:
        """Take the job that ``first`` has just shown."""
        if self._came_back and not (self._in_order and self._in_order[0] < self._came_back[0]):
            return heapq.heappop(self._came_back)[2]
        return self._in_order.popleft()[2]

    def __iter__(self) -> Iterator[JobRecord]:
        """Yield the ready jobs in order. O(n log n): for tests and pictures."""
        for _, _, job in sorted([*self._in_order, *self._came_back]):
            if job.state is _QUEUED:
                yield job
