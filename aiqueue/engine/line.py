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

_QUEUED = JobState.QUEUED


class Line:
    """One level of one lane. What leaves without being taken stays until it comes to the front."""

    __slots__ = ("_came_back", "_in_order")

    def __init__(self) -> None:
        self._in_order: deque[Entry] = deque()
        self._came_back: list[Entry] = []

    def push(self, entry: Entry) -> None:
        """Add a job whose state is QUEUED."""
        if not self._in_order or self._in_order[-1] < entry:
            self._in_order.append(entry)
        else:
            heapq.heappush(self._came_back, entry)

    def first(self) -> Entry | None:
        """Return the job that is to be served next; None if there is none."""
        in_order, came_back = self._in_order, self._came_back
        while in_order and in_order[0][2].state is not _QUEUED:
            in_order.popleft()
        while came_back and came_back[0][2].state is not _QUEUED:
            heapq.heappop(came_back)
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
