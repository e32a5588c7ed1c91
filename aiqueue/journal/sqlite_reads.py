"""What the embedded journal reads: one connection, which threads use in turn."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiqueue.engine.engine import BatchRow
from aiqueue.journal import checks, queries
from aiqueue.journal.base import NO_LIMIT, EndedRow, OldKey, PartRow, Recovered, StoredJob, StoredKey, weight_of
from aiqueue.journal.live import LiveReader
from aiqueue.journal.passed_over import PassedOver
from aiqueue.journal.rows import chunks, marks, old_batches, within


class SqliteReads:
    """The reading half of ``SqliteJournal``, which sets ``_reader``. Each read sees the last commit."""

    _reader: sqlite3.Connection

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._live = LiveReader(path)
        self._passed_over = PassedOver(path)

    @contextmanager
    def recover(self) -> Iterator[Recovered]:
        """Open a consistent view of the jobs that have not ended."""
        with self._reading, self._live.read(self._reader) as found:
            yield found

    def payloads(self, seqs: Sequence[int], *, limit: int = NO_LIMIT) -> dict[int, bytes]:
        """Return payloads by seq. Reads no more of them once they have more than ``limit`` bytes."""
        rows = self._select("SELECT seq, CAST(payload AS BLOB) FROM jobs WHERE seq IN {}", seqs)
        return dict(within(rows, lambda row: len(row[1]), limit))

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        """Return the jobs that are known, by id; payload and result are empty where they are not asked for."""
        query = queries.stored(with_payload=with_payload, with_result=with_result) + " WHERE id IN {}"
        rows = self._select(query, list(ids))
        return {row[1]: StoredJob(*row) for row in (rows if limit == NO_LIMIT else within(rows, weight_of, limit))}

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the states of the jobs that are known, by id."""
        query = "SELECT id, coalesce(state, 'queued') FROM jobs LEFT JOIN states USING (seq) WHERE id IN {}"
        return dict(self._select(query, ids))

    def attempts(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the AttemptRecords of jobs by seq, the first attempt first."""
        found: dict[int, list[bytes]] = {}
        for seq, body in self._select("SELECT seq, body FROM attempts WHERE seq IN {} ORDER BY seq, attempt", seqs):
            found.setdefault(seq, []).append(body)
        return found

    def keys(self, keys: Sequence[str]) -> dict[str, StoredKey]:
        """Return the idempotency keys that are known."""
        return {key: StoredKey(*row) for key, *row in self._select(queries.KEYS, keys)}

    def keys_of_only(self, seqs: Sequence[int]) -> list[tuple[str, str]]:
        """Return key and first job id of each key of a list whose kept jobs are all among ``seqs``."""
        mine: Counter[tuple[str, str, int, int]] = Counter()
        for *key, count in self._select(queries.LISTS, seqs):  # a list may have jobs in several parts of the answer
            mine[tuple(key)] += count
        with self._reading:
            return [
                (key, job_id)
                for (key, job_id, first, last), count in mine.items()
                if self._reader.execute(queries.KEPT, (first, last, count + 1)).fetchone()[0] == count
            ]

    def ended(self, *, after: tuple[float, int], before: float, limit: int) -> list[EndedRow]:
        """Return jobs that ended before a time, in the order of their ends; of those after (time, seq) of one."""
        with self._reading:
            return self._passed_over.ended(self._reader, after, before, limit)

    def weights(self, ids: Sequence[str], *, with_payload: bool, with_result: bool = True) -> dict[str, int]:
        """Return how many bytes ``jobs`` would read of each job that is known. Reads none of them."""
        return dict(self._select(queries.weights("id", with_payload=with_payload, with_result=with_result), ids))

    def row_sizes(self, seqs: Sequence[int], *, with_payload: bool, with_result: bool) -> dict[int, int]:
        """Return how many bytes ``by_seq`` would read of each job that is known. Reads none of them."""
        query = queries.weights("jobs.seq", with_payload=with_payload, with_result=with_result)
        return dict(self._select(query, seqs))

    def attempt_sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """Return how many bytes ``attempts`` would read of each job that has any. Reads none of them."""
        return dict(self._select(queries.ATTEMPT_SIZES, seqs))

    def sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """Return how many bytes the payloads and results of jobs have, by seq. Reads neither."""
        return dict(self._select(queries.SIZES, seqs))

    def newest_id(self) -> str:
        """Return the highest job id that the queue's clients made; empty if there is none."""
        with self._reading, checks.refused_if_damaged(self.path):  # asked at the start
            found = self._reader.execute(queries.NEWEST_ID).fetchone()
        return str(found[0]) if found else ""

    def count_jobs(self) -> int:
        """Return how many jobs are kept, whatever their state."""
        with self._reading:
            (count,) = self._reader.execute("SELECT stored FROM counters").fetchone()
        return int(count)

    def old_keys(self, *, before: float, limit: int, stuck: Collection[str] = ()) -> list[OldKey]:
        """Return idempotency keys whose time is before another, the oldest first."""
        return self._passed_over.old_keys(self._reader, self._reading, before, limit, stuck)

    def has_older(self, *, batches_before: float) -> bool:
        """Return True if a commit with this time would forget ended batches."""
        with self._reading:  # as a commit reads it: what that can't read, this can't either
            return bool(old_batches(self._reader, batches_before, self._passed_over.listed("batches")))

    def dead_letter_seqs(self, *, before_seq: int, limit: int) -> list[int]:
        """Return the seqs of dead letters, the newest first. Reads an index of them alone."""
        with self._reading:
            return [seq for (seq,) in self._reader.execute(queries.DEAD_LETTER_SEQS, (before_seq, limit))]

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are. Reads an index of them alone."""
        with self._reading:
            (count,) = self._reader.execute("SELECT count(*) FROM states WHERE state = 'dead_letter'").fetchone()
        return int(count)

    def batch(self, batch_id: str) -> BatchRow | None:
        """Return a batch, whether it has ended or not."""
        with self._reading:
            row: BatchRow | None = self._reader.execute(f"{queries.BATCHES} WHERE id = ?", (batch_id,)).fetchone()
        return row

    def parts(self, number: int) -> list[PartRow]:
        """Return where the jobs of a batch are, in the order they were accepted."""
        query = "SELECT first_seq, count, first_index FROM parts WHERE no = ? ORDER BY first_seq"
        with self._reading:
            return [PartRow(*row) for row in self._reader.execute(query, (number,))]

    def batch_ends(self, number: int, *, after: int, limit: int) -> list[int]:
        """Return the seqs of a batch's jobs that have ended, in the order of their ends, from end ``after`` + 1 on."""
        query = "SELECT seq FROM ends WHERE no = ? AND n > ? ORDER BY n LIMIT ?"
        with self._reading:
            return [seq for (seq,) in self._reader.execute(query, (number, after, limit))]

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True) -> list[StoredJob]:
        """Return the jobs that are known, in the order of ``seqs``."""
        query = queries.stored(with_payload=with_payload, with_result=with_result) + " WHERE jobs.seq IN {}"
        found = {row[0]: StoredJob(*row) for row in self._select(query, seqs)}
        return [found[seq] for seq in seqs if seq in found]

    def headers(self, *, from_seq: int, count: int) -> list[tuple[int, bytes]]:
        """Return seq and header of the jobs that are known among ``count`` seqs. Reads nothing else of them."""
        query = "SELECT seq, header FROM jobs WHERE seq >= ? AND seq < ? ORDER BY seq"
        with self._reading:
            return self._reader.execute(query, (from_seq, from_seq + count)).fetchall()

    def _select(self, query: str, items: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of ``query``, whose ``{}`` stands for the list of ``items``; others may read in between."""
        for part in chunks(items):
            with self._reading:
                yield from self._reader.execute(query.format(marks(part)), part)

    def outlines(self, seqs: Sequence[int]) -> list[StoredJob]:
        """Return the jobs that are known with id and state alone, in the order of ``seqs``."""
        found = {row[0]: StoredJob(*row) for row in self._select(queries.OUTLINES, seqs)}
        return [found[seq] for seq in seqs if seq in found]
