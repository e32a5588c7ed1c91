"""Ready jobs, in a line per level and lane.

A claim looks at the heads of a pool's lanes and takes the best: level first, then the earliest SLA deadline, then the
order of acceptance. With one SLA per level that is first in, first out inside a level, and a job that comes back after
a retry or a lost worker finds its old place. Cost: O(lanes of the pool + n) for n claims, however many jobs wait.

Ageing: a job counts one level higher for each time it has waited ``ageing`` SLAs of its level, up to the first level,
where its old deadline puts it before newer jobs. So a ``low`` job (60 s) with ``ageing`` 2 is served like an urgent one
after 6 minutes, however many urgent jobs keep coming.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterator, Sequence
from typing import NamedTuple

from aiqueue.engine.affinity import Affinity, Candidate
from aiqueue.engine.line import Line
from aiqueue.engine.records import JobRecord, LaneKey

FEW_LANES = 1_000  #: are kept, though nothing waits in them
Room = Callable[[LaneKey], int]  #: how many jobs of a lane may start now


class Head(NamedTuple):
    """A lane's best job: what it is compared by, and the line it stands in."""

    counts_as: int  #: its level, after ageing
    deadline: float
    seq: int
    level: int


class Lane:
    """The ready jobs of one lane."""

    __slots__ = ("_lines", "_sla_s", "_step_s", "key", "queued", "ready")

    def __init__(self, key: LaneKey, sla_s: tuple[float, ...], ageing: float) -> None:
        levels = len(sla_s)
        self.key = key
        self.queued = [0] * levels
        self.ready = 0  #: jobs of all levels
        self._sla_s = sla_s
        self._step_s = tuple(ageing * sla or float("inf") for sla in sla_s)
        self._lines = [Line() for _ in range(levels)]

    def push(self, job: JobRecord, deadline: float) -> None:
        """Add a job whose state is QUEUED; ``deadline`` is when its SLA runs out."""
        self._lines[job.level].push((deadline, job.seq, job))
        self.queued[job.level] += 1
        self.ready += 1

    def discard(self, job: JobRecord) -> None:
        """Count a job out that leaves without being taken; its state is still QUEUED."""
        self.queued[job.level] -= 1
        self.ready -= 1
        self._lines[job.level].leave()

    def head(self, now: float, *, levels: int | None = None) -> Head | None:
        """Return the rank of the job that would be taken next, of the first ``levels`` only if given; or None."""
        best = None
        for level, line in enumerate(self._lines[:levels]):
            if self.queued[level] and (first := line.first()):
                deadline, seq, _ = first
                waited = now - deadline + self._sla_s[level]
                counts_as = max(0, level - max(0, int(waited / self._step_s[level])))  # a clock may have been set back
                head = Head(counts_as, deadline, seq, level)
                best = head if best is None else min(best, head)
        return best

    def oldest(self) -> float | None:
        """Return since when the job waits that has been ready longest, whatever its level."""
        return min((first[2].since for line in self._lines if (first := line.first())), default=None)

    def oldest_of(self, level: int) -> float | None:
        """Return when the ready job of ``level`` that waits longest was accepted."""
        first = self._lines[level].first()
        return first[2].created_at if first else None

    def pop(self, level: int) -> JobRecord:
        """Take the head of ``level``, as ``head`` has just shown it."""
        self.queued[level] -= 1
        self.ready -= 1
        return self._lines[level].pop()

    @property
    def empty(self) -> bool:
        """Whether no job is ready; what was discarded may still lie there."""
        return not self.ready

    def in_order(self) -> Iterator[JobRecord]:
        """Yield the ready jobs in the order of service. O(n log n): for tests and pictures."""
        for line in self._lines:
            yield from line


class Lanes:
    """All lanes, by pool."""

    def __init__(self, sla_s: tuple[float, ...], ageing: float) -> None:
        self._sla_s, self._ageing = sla_s, ageing
        self._lanes: dict[LaneKey, Lane] = {}
        # Those that are not empty, by pool: a claim must not look at every model that was ever named.
        self._pools: dict[str, dict[LaneKey, Lane]] = {}
        self._apart: dict[str, dict[LaneKey, Lane]] = {}  # of suspects
        self._most = FEW_LANES  # then the empty ones are forgotten
        self.suspects = 0  #: ready jobs that may not run beside others

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def push(self, job: JobRecord) -> None:
        """Make a QUEUED job claimable."""
        lane = self._lanes.get(job.lane)
        if lane is None:
            lane = self._lanes[job.lane] = Lane(job.lane, self._sla_s, self._ageing)
        if not lane.ready:
            pools = self._apart if job.lane.company else self._pools
            pools.setdefault(job.lane.pool, {})[job.lane] = lane
        lane.push(job, job.since + self._sla_s[job.level])
        if job.lane.company:
            self.suspects += 1

    def discard(self, job: JobRecord) -> None:
        """Forget a job that is QUEUED and about to be something else without having been claimed."""
        lane = self._lanes[job.lane]
        lane.discard(job)
        if not lane.ready:
            self._emptied(lane)
        self.suspects -= job.lane.company > 0

    def __len__(self) -> int:
        return len(self._lanes)

    def filled(self) -> Iterator[Lane]:
        """Yield the lanes that jobs wait in."""
        for pools in (self._pools, self._apart):
            for lanes in pools.values():
                yield from lanes.values()

    def prune(self) -> None:
        """Forget the lanes that nothing waits in, once there are many: callers may name any number of models."""
        if len(self._lanes) > self._most:
            self._lanes = {lane.key: lane for lane in self.filled()}
            self._most = max(FEW_LANES, 2 * len(self._lanes))

    def _emptied(self, lane: Lane) -> None:
        pools = self._apart if lane.key.company else self._pools
        del pools[lane.key.pool][lane.key]

    def queued(self, pool: str, room: Room, *, apart: bool = False) -> int:
        """Return how many jobs a worker of ``pool`` could claim now, if it had the slots; ``apart``: suspects."""
        return sum(min(lane.ready, room(lane.key)) for lane in self._of(pool, apart))

    def first(self, pool: str, room: Room, *, now: float, apart: bool) -> Head | None:
        """Return the rank of the job that ``take`` would return first; or None. O(lanes of the pool)."""
        ready = (lane for lane in self._of(pool, apart) if room(lane.key))
        return min((head for lane in ready if (head := lane.head(now))), default=None)

    def _of(self, pool: str, apart: bool) -> Sequence[Lane]:
        found = (self._apart if apart else self._pools).get(pool)
        return list(found.values()) if found else ()

    def take(
        self, pool: str, count: int, room: Room, *, now: float, levels: int | None = None, apart: bool = False
    ) -> list[JobRecord]:
        """Remove and return the ``count`` best jobs of ``pool`` that their gates let through (maybe fewer).

        ``levels``: of the first so many levels only. ``apart``: suspects, and no others.
        """
        lanes = self._of(pool, apart)
        left = [room(lane.key) for lane in lanes]
        heads = [(head, at) for at, lane in enumerate(lanes) if left[at] and (head := lane.head(now, levels=levels))]
        heapq.heapify(heads)
        taken: list[JobRecord] = []
        while heads and len(taken) < count:
            best, at = heads[0]
            taken.append(lanes[at].pop(best.level))
            left[at] -= 1
            if left[at] and (head := lanes[at].head(now, levels=levels)):
                heapq.heapreplace(heads, (head, at))
            else:
                heapq.heappop(heads)
        self._took(taken, lanes, apart)
        return taken

    def take_alike(
        self,
        pool: str,
        count: int,
        room: Room,
        affinity: Affinity,
        served: Container[str],
        *,
        now: float,
        levels: int | None,
        apart: bool = False,
    ) -> list[JobRecord]:
        """As ``take``, for a worker that holds one model at a time; ``served``: the models that others are on.

        Cost: O(lanes of the pool) for each job.
        """
        lanes = self._of(pool, apart)
        left = [room(lane.key) for lane in lanes]
        taken: list[JobRecord] = []
        while len(taken) < count:
            found = [
                Candidate(*head, at, lane.key.model)
                for at, lane in enumerate(lanes)
                if left[at] and (head := lane.head(now, levels=levels))
            ]
            if not found:
                break
            chosen = affinity.choose(found, served)
            taken.append(lanes[chosen.lane].pop(chosen.level))
            left[chosen.lane] -= 1
        self._took(taken, lanes, apart)
        return taken

    def queued_alike(self, pool: str, model: str, room: Room) -> int:
        """Return how many jobs for ``model`` a worker of ``pool`` could claim now, if it had the slots."""
        alike = (lane for lane in self._of(pool, False) if lane.key.model == model)
        return sum(min(lane.ready, room(lane.key)) for lane in alike)

    def _took(self, taken: list[JobRecord], lanes: Sequence[Lane], apart: bool) -> None:
        if taken:
            for lane in lanes:
                if not lane.ready:
                    self._emptied(lane)
            if apart:
                self.suspects -= len(taken)
