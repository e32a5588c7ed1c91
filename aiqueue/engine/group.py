"""One batch that has not ended: its jobs, how many of them are where, and whether it must stop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.line import FEW
from aiqueue.engine.records import JobRecord, LaneKey
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.protocol import BatchSpec

WINDOW = 1_024  #: jobs of one batch that stand in a lane at most
RUNNING = frozenset({JobState.PROCESSING, JobState.CANCELLING})  #: states of a job that a worker has
FAILED = frozenset({JobState.FAILED, JobState.DEAD_LETTER, JobState.EXPIRED})  #: count towards ``max_failed_ratio``


class Group:
    """One live batch."""

    __slots__ = (
        "_jobs",
        "doomed",
        "held",
        "held_ids",
        "in_flight",
        "in_lanes",
        "leaving",
        "live",
        "no",
        "parts",
        "replaced",
        "spec",
        "stored",
        "touched_at",
    )

    def __init__(self, no: int, spec: BatchSpec, stored: StoredBatch, *, now: float) -> None:
        self.no, self.spec, self.stored = no, spec, stored
        self.touched_at = now  #: when the last part of an open one came
        self.live = 0  #: jobs that have not ended
        self.in_flight = 0
        self.in_lanes: dict[LaneKey, int] = {}
        self.held: dict[LaneKey, list[tuple[int, int, JobRecord]]] = {}  #: heaps of level, seq, job
        self.held_ids: set[str] = set()
        self.replaced: set[int] = set()  #: seqs of jobs that were given a successor while it was live
        self._jobs: list[JobRecord] = []  # in the order of acceptance, ended ones among them
        self.doomed: list[JobRecord] | None = None  #: to be cancelled or forgotten, the next one last; some have ended
        self.parts: list[range] = []  #: of an open one: seqs of all its jobs, ended ones among them
        self.leaving: Iterator[int] = iter(())  #: of a dropped one: seqs that are still to be forgotten

    def join(self, job: JobRecord) -> None:
        """Take a live job."""
        self.live += 1
        self.in_flight += job.state in RUNNING
        self._jobs.append(job)

    def join_all(self, jobs: Collection[JobRecord]) -> None:
        """Add live jobs that no worker runs."""
        self.live += len(jobs)
        self._jobs += jobs

    def members(self) -> list[JobRecord]:
        """Return the live jobs, in the order of acceptance."""
        self._jobs = [job for job in self._jobs if job.state not in TERMINAL]
        return list(self._jobs)

    def by_level(self, levels: Iterable[int] = ()) -> Iterator[JobRecord]:
        """Yield its jobs in the order in which they would be claimed, ended ones among them. To begin costs little.

        ``levels``: those that its jobs have, if the caller knows them.
        """
        jobs = list(self._jobs)
        levels = sorted(levels or {job.level for job in jobs})
        return (job for level in levels for job in jobs if job.level == level)

    def left(self) -> None:
        """A job has ended. Ended ones are let go once there are more of them than of live ones."""
        self.live -= 1
        if len(self._jobs) > 2 * self.live + FEW:
            self.members()

    def doom(self) -> None:
        """Note its jobs, to be cancelled or forgotten in the order of acceptance."""
        self.doomed = self._jobs[::-1]

    def doom_all(self) -> None:
        """Note its jobs, to be forgotten, ended ones among them."""
        self.doom()
        if sum(part.stop - part.start for part in self.parts) != self.stored.total:
            # A row of a part is damaged: no other batch's jobs may go with this one's.
            self.parts = [range(job.seq, job.seq + 1) for job in self._jobs]
        after = self.stored.forgotten + 1
        self.leaving = chain.from_iterable(range(max(part.start, after), part.stop) for part in self.parts)

    @property
    def is_open(self) -> bool:
        """Whether more jobs may be added: it is not sealed and not dropped."""
        return self.stored.phase == "open" and not self.stored.dropped

    @property
    def free(self) -> int:
        """How many more of its jobs may start now."""
        if self.stored.paused or self.stored.phase != "running":
            return 0
        limit = self.spec.max_concurrency
        return limit - self.in_flight if limit else WINDOW

    def trips(self) -> str:
        """Return why the batch must stop; empty if it need not."""
        failed = sum(self.stored.ended.get(state.value, 0) for state in FAILED)
        if self.spec.fail_fast and failed:
            return "a job failed, and fail_fast is set"
        # A quotient is rounded as the caller's limit was: 29 / 100 is 0.29, but 0.29 * 100 is less than 29.
        if failed / max(1, self.stored.total) > self.spec.max_failed_ratio:
            return f"{failed} of {self.stored.total} jobs failed, more than max_failed_ratio allows"
        return ""
