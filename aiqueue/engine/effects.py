"""What a command causes: rows to persist, events to publish, a reply.

The shell makes the rows durable before anyone sees the events or the reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from aiqueue.engine.records import JobRecord
from aiqueue.protocol import Event, Need

#: In place of the time of a job's end; as long as one on disk. A page of the journal is full of the rows of jobs that
#: run: rows that grew when their jobs end would split it.
NOT_ENDED = -0.5
#: In place of the number of a key's batch, for a key of a list of which a job was deleted that was no dead letter. The
#: list has done some of its work, so deleting its dead letters does not free the key before its day is over.
SPENT = 0
_SPREAD = 500  # rows that are made at once


class KeyRow(NamedTuple):
    """An idempotency key, and the jobs that were submitted with it: their seqs have no gaps."""

    key: str
    job_id: str  #: of the first job, or the id of a schedule
    digest: bytes  #: of what was submitted
    at: float
    first_seq: int | None = None  #: None for a schedule
    last_seq: int | None = None
    batch: int | None = None  #: number of their batch, or SPENT


@dataclass(frozen=True, slots=True)
class JobRows:
    """The rows of many jobs that were accepted in one step: their seqs have no gaps.

    The writer's thread makes them: 100,000 tuples would take a third of that step, and set off the garbage collector.
    """

    first: int  #: seq of the first one
    ids: Set[str]  #: in order
    headers: Sequence[bytes]
    payloads: Sequence[bytes]

    def rows(self) -> Iterator[tuple[int, str, bytes, bytes]]:
        """Return an iterator over the rows."""
        return zip(range(self.first, self.first + len(self.ids)), self.ids, self.headers, self.payloads, strict=True)


@dataclass(slots=True)
class Rows:
    """Journal rows, as plain tuples: they go to the database as they are."""

    jobs: list[tuple[int, str, bytes, bytes]] = field(default_factory=list)  #: seq, id, header, payload
    shared: list[tuple[int, int, bytes]] = field(default_factory=list)
    """First and last seq of jobs that were accepted together, and the metadata that all of them have."""
    states: list[tuple[int, str, bytes, float]] = field(default_factory=list)
    """Seq, state, Progress, when the job ended (or NOT_ENDED); the last one counts."""
    results: list[tuple[int, bytes]] = field(default_factory=list)  #: seq, result
    attempts: list[tuple[int, int, bytes]] = field(default_factory=list)  #: seq, attempt, AttemptRecord
    gates: list[tuple[str, bytes]] = field(default_factory=list)  #: key, StoredGate; the last one counts
    keys: list[KeyRow] = field(default_factory=list)
    schedules: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    """Id, ScheduleSpec (empty: as it is), ScheduleState (empty: the schedule is gone); in order."""
    deletes: list[int] = field(default_factory=list)  #: seqs of ended jobs to forget
    free_keys: list[tuple[str, str]] = field(default_factory=list)  #: idempotency keys to forget, if of this job id
    batches: list[tuple[int, str, bytes]] = field(default_factory=list)  #: number, id, BatchSpec
    batch_states: list[tuple[int, bytes, float]] = field(default_factory=list)  #: number, StoredBatch, when it ended
    parts: list[tuple[int, int, int, int]] = field(default_factory=list)  #: batch, first seq, count, first index
    ends: list[tuple[int, int, int]] = field(default_factory=list)  #: batch, how manieth end, seq
    dropped: list[int] = field(default_factory=list)  #: numbers of batches to forget
    batches_before: float = 0.0  #: batches that ended earlier are forgotten, so many rows of them per commit
    key_times: list[tuple[float, str, str]] = field(default_factory=list)  #: time, key, the job that the key must have
    counters: bytes = b""  #: Counters; the last one counts
    lists: list[JobRows] = field(default_factory=list)  #: more rows of ``jobs``, until ``spread``

    def spread(self) -> None:
        """Move the rows of ``lists`` to ``jobs``, in the order of seqs. Slow: call it in the writer's thread."""
        for listed in self.lists:
            rows = listed.rows()
            while part := list(islice(rows, _SPREAD)):  # other threads run in between
                self.jobs += part
        if self.lists:
            self.jobs.sort(key=itemgetter(0))
            self.lists = []

    def __bool__(self) -> bool:
        changed = self.jobs or self.lists or self.states or self.results or self.gates or self.deletes
        return bool(
            changed or self.schedules or self.counters or self.key_times or self.free_keys or self._batches_changed
        )

    def extend(self, later: Rows) -> None:
        """Append ``later``, which was made after these."""
        self.jobs += later.jobs
        self.lists += later.lists
        self.shared += later.shared
        self.states += later.states
        self.results += later.results
        self.attempts += later.attempts
        self.gates += later.gates
        self.keys += later.keys
        self.schedules += later.schedules
        self.deletes += later.deletes
        self.free_keys += later.free_keys
        if later._batches_changed:
            self._extend_batches(later)
        self.key_times += later.key_times
        self.counters = later.counters or self.counters

    @property
    def _batches_changed(self) -> bool:
        return bool(self.batch_states or self.dropped or self.batches_before)

    def _extend_batches(self, later: Rows) -> None:
        self.batches += later.batches
        self.batch_states += later.batch_states
        self.parts += later.parts
        self.ends += later.ends
        self.dropped += later.dropped
        self.batches_before = max(self.batches_before, later.batches_before)


@dataclass(slots=True)
class Effects:
    """What came of one command."""

    reply: Any = None
    rows: Rows = field(default_factory=Rows)
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class Granted:
    """Reply to an Exchange: jobs the worker is to start, attempts it is to stop."""

    claims: list[JobRecord] = field(default_factory=list)
    cancels: list[tuple[str, int]] = field(default_factory=list)
    needs: dict[str, tuple[Sequence[Need], str]] = field(default_factory=dict)  #: of claims that waited for others

    def __bool__(self) -> bool:
        return bool(self.claims or self.cancels)
