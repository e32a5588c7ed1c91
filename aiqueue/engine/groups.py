"""Batches that have not ended: their counts, and which of their jobs may be claimed.

A batch shows the lanes only as many of its jobs as may start now; the others it holds, best first. So a claim costs
what it costs without batches, and pausing one of 100,000 jobs moves a thousand at most. Never more than
``max_concurrency`` are in flight: a claim that finds a job whose batch is at its limit gives it back.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.group import FAILED, RUNNING, WINDOW, Group
from aiqueue.engine.lanes import FEW_LANES, Lanes
from aiqueue.engine.records import JobRecord, LaneKey
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.protocol import BatchSpec, Failure

TAKEN_AT_ONCE = WINDOW // 2  #: by a claim, so that a batch never seems to have run out of jobs
_FIRST_ERRORS = 10
_MUCH_MORE = 8  # times as many in a heap as are to be added: pushing them is cheaper than ordering all
_MESSAGE = 300  # characters of an error that are kept


class Groups:
    """All live batches."""

    def __init__(self, lanes: Lanes, *, levels: int) -> None:
        self._lanes, self._levels = lanes, levels
        self.live: dict[str, Group] = {}
        self.dirty: dict[str, Group] = {}  #: to be written at the end of the turn
        self.finished: list[Group] = []  #: of this turn
        self.tripped: list[tuple[Group, str]] = []  #: to be stopped in this turn, and why
        self.stopping: dict[str, Group] = {}
        self.dropped: list[Group] = []  #: gone from memory, but not from disk yet; the service empties this list
        self.opened: dict[str, Group] = {}  #: not sealed yet
        self.sealing: dict[str, Iterator[JobRecord]] = {}  #: sealed: jobs that have yet to become ready
        self.held: dict[LaneKey, list[int]] = {}  #: jobs held outside the lanes, by level
        self._most = FEW_LANES  # then those with none are forgotten

    def __bool__(self) -> bool:
        return bool(self.live)

    def add(self, no: int, spec: BatchSpec, stored: StoredBatch, *, now: float) -> Group:
        """Make a batch known."""
        group = self.live[spec.id] = Group(no, spec, stored, now=now)
        if stored.phase == "stopping" or stored.dropped:
            self.stopping[spec.id] = group
        elif stored.phase == "open":
            self.opened[spec.id] = group
        return group

    def restore_parts(self, parts: Iterable[tuple[int, int, int]]) -> None:
        """Tell the open batches which seqs their jobs have: number of the batch, first seq, count."""
        found = {group.no: group.parts for group in self.live.values() if group.stored.phase == "open"}
        for no, first, count in parts:
            if no in found:
                found[no].append(range(first, first + count))

    def extend(self, seconds: float, *, now: float) -> None:
        """Let open batches wait ``seconds`` longer for their next part: none could come meanwhile."""
        if seconds:
            for group in self.live.values():
                group.touched_at = min(group.touched_at + seconds, now)

    def remove(self, group: Group) -> None:
        """Forget a batch whose jobs are gone."""
        for groups in (self.live, self.stopping, self.opened):
            groups.pop(group.spec.id, None)
        self.sealing.pop(group.spec.id, None)

    def prune(self) -> None:
        """Forget the lanes that nothing is held outside, once there are many."""
        if len(self.held) > self._most:
            self.held = {lane: counts for lane, counts in self.held.items() if any(counts)}
            self._most = max(FEW_LANES, 2 * len(self.held))

    # --- claims ---

    def hold(self, job: JobRecord) -> bool:
        """Return True if the batch holds back a job that became QUEUED; otherwise push it to its lane."""
        group = self.live.get(job.batch_id)
        if group is None:
            return False
        standing = group.in_lanes.get(job.lane, 0)
        if standing < min(WINDOW, group.free):
            group.in_lanes[job.lane] = standing + 1
            return False
        self._keep(group, job)
        return True

    def hold_all(self, group: Group, jobs: Iterable[JobRecord]) -> None:
        """Take many jobs of a batch that became QUEUED, and show the lanes the best of them."""
        by_lane: dict[LaneKey, list[JobRecord]] = {}
        for job in jobs:
            by_lane.setdefault(job.lane, []).append(job)
        for lane, found in by_lane.items():
            heap, counts = self._held_in(group, lane)
            if len(heap) > _MUCH_MORE * len(found):  # they come in order: each takes few steps
                for job in found:
                    heapq.heappush(heap, (job.level, job.seq, job))
            else:
                heap += [(job.level, job.seq, job) for job in found]
                heapq.heapify(heap)
            group.held_ids.update(job.id for job in found)
            for level, count in Counter(job.level for job in found).items():
                counts[level] += count
        self.refill(group)

    def withdraw(self, job: JobRecord) -> bool:
        """A job stops being QUEUED without being claimed; tell whether it was held, and so is in no lane."""
        group = self.live.get(job.batch_id)
        if group is None:
            return False
        if job.id in group.held_ids:
            group.held_ids.discard(job.id)
            self.held[job.lane][job.level] -= 1
            return True
        group.in_lanes[job.lane] -= 1
        return False

    def start(self, job: JobRecord) -> bool:
        """Return True if a job that was taken from its lane may start; else the batch holds it again."""
        group = self.live.get(job.batch_id)
        if group is None:
            return True
        group.in_lanes[job.lane] -= 1
        if group.free <= 0:
            self._keep(group, job)
            return False
        group.in_flight += 1
        if group.held_ids:
            self._refill(group, job.lane)
        return True

    def refill(self, group: Group) -> None:
        """Show the lanes as many jobs as may start."""
        for lane in list(group.held):
            self._refill(group, lane)

    def _keep(self, group: Group, job: JobRecord) -> None:
        heap, counts = self._held_in(group, job.lane)
        heapq.heappush(heap, (job.level, job.seq, job))
        group.held_ids.add(job.id)
        counts[job.level] += 1

    def _held_in(self, group: Group, lane: LaneKey) -> tuple[list[tuple[int, int, JobRecord]], list[int]]:
        """Return the heap of a batch's jobs outside a lane, and the counts of all that are held outside it."""
        heap = group.held.get(lane)
        if heap is None:
            heap = group.held[lane] = []
        counts = self.held.get(lane)
        if counts is None:
            counts = self.held[lane] = [0] * self._levels
        return heap, counts

    def _refill(self, group: Group, lane: LaneKey) -> None:
        heap = group.held.get(lane)
        if not heap:
            return
        missing = min(WINDOW, group.free) - group.in_lanes.get(lane, 0)
        while missing > 0 and heap:
            _, _, job = heapq.heappop(heap)
            if job.id in group.held_ids:  # and was not withdrawn meanwhile
                group.held_ids.discard(job.id)
                self.held[lane][job.level] -= 1
                self._lanes.push(job)
                group.in_lanes[lane] = group.in_lanes.get(lane, 0) + 1
                missing -= 1

    # --- what becomes of its jobs ---

    def drops(self, job: JobRecord) -> bool:
        """Return True if the job's batch is being dropped."""
        group = self.live.get(job.batch_id)
        return group is not None and group.stored.dropped

    def joined(self, job: JobRecord) -> None:
        """A live job of a batch is there: new, or loaded from the journal."""
        group = self.live.get(job.batch_id)
        if group is not None:
            group.join(job)

    def moved(self, job: JobRecord, source: JobState, failure: Failure | None) -> int:
        """A job of a batch has changed its state. For one that ended return the number of its batch, else 0."""
        group = self.live.get(job.batch_id)
        if group is None:
            return 0
        target = job.state
        if source in RUNNING and target not in RUNNING:
            group.in_flight -= 1
        if group.held_ids and target is not JobState.PROCESSING:
            if source in RUNNING and group.spec.max_concurrency:
                self.refill(group)  # one more may start, of any lane
            else:
                self._refill(group, job.lane)
        if target in TERMINAL:
            self._count_end(group, job, failure)
            return group.no
        return 0

    def ended_outside(self, job: JobRecord, failure: Failure) -> int:
        """A job ended that was never loaded; return the number of its batch, 0 if it is of none that is live."""
        group = self.live.get(job.batch_id)
        if group is None:
            return 0
        group.live += 1
        self._count_end(group, job, failure)
        return group.no

    def ends_of(self, batch_id: str) -> int:
        """Return how many ends of a live batch's jobs were numbered so far."""
        return self.live[batch_id].stored.ends

    def _count_end(self, group: Group, job: JobRecord, failure: Failure | None) -> None:
        stored, name = group.stored, job.state.value
        group.left()
        stored.ends += 1
        stored.ended[name] = stored.ended.get(name, 0) + 1
        self.dirty[group.spec.id] = group
        if job.state in FAILED:
            kind = failure.kind if failure else name
            stored.errors[kind] = stored.errors.get(kind, 0) + 1
            if len(stored.first_errors) < _FIRST_ERRORS:
                stored.first_errors.append((job.id, kind, failure.message[:_MESSAGE] if failure else ""))
            if stored.phase == "running" and (why := group.trips()):
                self.tripped.append((group, why))
        if not group.live and stored.phase != "open":
            self.finished.append(group)

    def fingerprint(self) -> dict[str, object]:
        """Return what a restart must bring back."""
        return {
            group.spec.id: (group.no, group.spec, group.stored, group.live, group.in_flight, group.parts)
            for group in self.live.values()
        }

    def held_in_order(self) -> Iterator[JobRecord]:
        """Yield the jobs that are held. O(n): for tests and pictures."""
        for group in self.live.values():
            for heap in group.held.values():
                yield from (job for _, _, job in heap if job.id in group.held_ids)
