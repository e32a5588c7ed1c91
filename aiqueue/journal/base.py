"""What the queue asks of its journal. SQLite is the embedded one; the protocol leaves room for a database server.

One writer: ``commit`` is only called from the writer thread. Reads may run in another thread at the same time and see
the last commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from aiqueue.engine.effects import Rows
from aiqueue.engine.engine import BatchRow, StoredPart, StoredSchedule
from aiqueue.engine.records import StoredRow

NO_LIMIT = 2**62
FORGOTTEN_AT_ONCE = 500  #: idempotency keys, and rows of ended batches, that one commit forgets at most


class JournalTaken(Exception):
    """Another queue has opened this journal since: what this one would write must not be written. Final."""


class JournalRefused(Exception):
    """The journal can't take these rows however often they are written: memory and disk differ. Final."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name  #: of the job or batch that is there already


class StoredJob(NamedTuple):
    """A job as the journal has it, whatever its state. ``state`` is empty while it has never been claimed."""

    seq: int
    id: str
    header: bytes
    state: str
    progress: bytes
    result: bytes
    payload: bytes
    metadata: bytes = b""  #: that it shares with others; of a job that shares none it is in the header

    @property
    def weight(self) -> int:
        """The bytes that were read, as ``Journal.weights`` counts them."""
        return weight_of(self)


def weight_of(row: Sequence[Any]) -> int:
    """Return the bytes of a row that has the fields of a StoredJob."""
    return len(row[2]) + len(row[4]) + len(row[5]) + len(row[6]) + len(row[7])


class Recovered(NamedTuple):
    """What a restart begins with: the counters (empty for a new journal) and the jobs that have not ended, by seq."""

    counters: bytes
    rows: Iterator[StoredRow]
    gates: Sequence[tuple[str, bytes]] = ()  #: key, StoredGate
    schedules: Sequence[StoredSchedule] = ()
    batches: Sequence[BatchRow] = ()  #: that have not ended
    last_seq: int = 0  #: of any job
    last_batch: int = 0  #: number of any batch
    parts: Sequence[StoredPart] = ()  #: of these batches, by first seq


class StoredKey(NamedTuple):
    """An idempotency key that was used."""

    job_id: str
    digest: bytes  #: of the body it was used with
    at: float
    jobs: int = 0  #: that were submitted with it, kept or not; 0: unknown, or a schedule
    batch: int | None = None  #: number of their batch, or SPENT


class PartRow(NamedTuple):
    """Jobs of a batch that were accepted together: their seqs have no gaps."""

    first_seq: int
    jobs: int
    first_index: int


class EndedRow(NamedTuple):
    """A job that has ended, as retention sees it."""

    at: float
    seq: int
    id: str


class OldKey(NamedTuple):
    """An idempotency key that was used long ago, and what became of what was submitted with it."""

    key: str
    job_id: str
    lives: bool  #: one of its jobs, or its batch, has not ended
    ended_at: float  #: their last known end, or the key's own time if that is later; not of all, if one lives


class Journal(Protocol):
    """Durable storage of rows."""

    def commit(self, rows: Rows) -> None:
        """Make ``rows`` durable, all or none of them. The same rows twice are the same rows once.

        What they delete is deleted first: a deleted job's or batch's id may be used again in the same commit. The time
        of a key that was submitted with a deleted job becomes the job's end, if that is later; it is SPENT unless the
        job was a dead letter.
        What is damaged and can't be deleted stays, and all else is written. Such a job becomes cancelled if it had not
        ended, or is a dead letter. ``ended`` and ``has_older`` skip it from then on.
        Raises OSError or the database's error when it can't, JournalTaken when it never can again, and JournalRefused
        for rows that contradict what is there: a job or batch whose id or number another one has.
        """
        ...

    def fold_log(self) -> None:
        """Do some of the upkeep that a later commit would have to. Called between commits, when none waits."""
        ...

    def has_room(self) -> bool:
        """Tell whether there is room for new jobs. False: only for the ends of those there are, if at all."""
        ...

    def reopen(self) -> None:
        """Make the journal fit to be written again after a commit failed. Raises if it still can't be."""
        ...

    def recover(self) -> AbstractContextManager[Recovered]:
        """Open what is needed to load the engine.

        Raises StartError for a damaged database, and ValueError the first time that a text of a row is no UTF-8; after
        that, such texts are read with surrogate escapes.
        """
        ...

    def payloads(self, seqs: Sequence[int], *, limit: int = NO_LIMIT) -> dict[int, bytes]:
        """Return payloads by seq. Reads no more of them once they have more than ``limit`` bytes."""
        ...

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        """Return the jobs that are known, by id; payload and result are empty where they are not asked for.

        Reads no more of them once they have more than ``limit`` bytes.
        """
        ...

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the states of the jobs that are known, by id; ``queued`` for one that has never been claimed."""
        ...

    def attempts(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the AttemptRecords of jobs by seq, the first attempt first."""
        ...

    def keys(self, keys: Sequence[str]) -> dict[str, StoredKey]:
        """Return the idempotency keys that are known."""
        ...

    def keys_of_only(self, seqs: Sequence[int]) -> list[tuple[str, str]]:
        """Return key and first job id of each key of a list whose kept jobs are all among ``seqs``.

        Not if a job of the list that was no dead letter was deleted before: see SPENT.
        """
        ...

    def ended(self, *, after: tuple[float, int], before: float, limit: int) -> list[EndedRow]:
        """Return jobs that ended before a time, in the order of their ends; of those after (time, seq) of one."""
        ...

    def weights(self, ids: Sequence[str], *, with_payload: bool, with_result: bool = True) -> dict[str, int]:
        """Return how many bytes ``jobs`` would read of each job that is known. Reads none of them."""
        ...

    def row_sizes(self, seqs: Sequence[int], *, with_payload: bool, with_result: bool) -> dict[int, int]:
        """Return how many bytes ``by_seq`` would read of each job that is known. Reads none of them."""
        ...

    def attempt_sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """Return how many bytes ``attempts`` would read of each job that has any. Reads none of them."""
        ...

    def sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """Return how many bytes the payloads and results of jobs have, by seq. Reads neither."""
        ...

    def newest_id(self) -> str:
        """Return the highest job id of those that compare as they were made; empty if there is none."""
        ...

    def count_jobs(self) -> int:
        """Return how many jobs are kept, whatever their state. Reads one row."""
        ...

    def old_keys(self, *, before: float, limit: int, stuck: Collection[str] = ()) -> list[OldKey]:
        """Return idempotency keys whose time is before another, the oldest first.

        ``stuck``: keys that the last commit was to forget. Those that are still there are skipped from now on.
        """
        ...

    def has_older(self, *, batches_before: float) -> bool:
        """Tell whether there are ended batches for a commit with this time to forget."""
        ...

    def dead_letter_seqs(self, *, before_seq: int, limit: int) -> list[int]:
        """Return the seqs of dead letters, the newest first. Reads an index of them alone."""
        ...

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are. Reads an index of them alone."""
        ...

    def batch(self, batch_id: str) -> BatchRow | None:
        """Return a batch, whether it has ended or not."""
        ...

    def parts(self, number: int) -> list[PartRow]:
        """Return where the jobs of a batch are, in the order they were accepted."""
        ...

    def batch_ends(self, number: int, *, after: int, limit: int) -> list[int]:
        """Return the seqs of a batch's jobs that have ended, in the order of their ends, from end ``after`` + 1 on."""
        ...

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True) -> list[StoredJob]:
        """Return the jobs that are known, in the order of ``seqs``; as ``jobs`` does."""
        ...

    def outlines(self, seqs: Sequence[int]) -> list[StoredJob]:
        """Return the jobs that are known with id and state alone, in the order of ``seqs``.

        For rows of which more can't be read.
        """
        ...

    def read_note(self) -> bytes:
        """Return what ``write_note`` kept; empty if there is nothing, or it can't be read."""
        ...

    def write_note(self, body: bytes) -> None:
        """Keep a small note beside the rows, on disk when this returns, whatever a commit under way does.

        For what a process that is about to end must tell the next one. Raises OSError.
        """
        ...

    def headers(self, *, from_seq: int, count: int) -> list[tuple[int, bytes]]:
        """Return seq and header of the jobs that are known among ``count`` seqs. Reads nothing else of them."""
        ...

    def close(self) -> None:
        """Let go of the journal. Nothing is lost without it."""
        ...
