"""The embedded journal: SQLite in WAL mode, one connection that writes and one that reads.

``synchronous=FULL`` makes a commit wait for the disk; that is what an acknowledgement stands on. A lock file keeps a
second queue actor (a zombie of an earlier one, or a second system on the same path) from writing the same journal.
Where it fails (someone removed the file), the epoch does not: each start raises it, and a commit under an old one is
refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiqueue.config import Durability
from aiqueue.engine.effects import Rows
from aiqueue.engine.engine import BatchRow
from aiqueue.errors import StartError
from aiqueue.journal import checks, queries, schema
from aiqueue.journal.base import (
    NO_LIMIT,
    EndedRow,
    JournalRefused,
    JournalTaken,
    OldKey,
    PartRow,
    Recovered,
    StoredJob,
    StoredKey,
    weight_of,
)
from aiqueue.journal.connection import LOG_BYTES, connect
from aiqueue.journal.failures import NOT_THE_DISK, is_damage, is_full, is_write_error
from aiqueue.journal.head import Head, Mark, checksum_of
from aiqueue.journal.live import LiveReader
from aiqueue.journal.lock import lock
from aiqueue.journal.log_space import fill_log
from aiqueue.journal.note import read_note, write_note
from aiqueue.journal.passed_over import PassedOver
from aiqueue.journal.reserve import Reserve
from aiqueue.journal.rows import chunks, marks, old_batches, within, write_rows
from aiqueue.journal.sparing import spare

# Part of every commit, and the same row and page as the counters themselves: the fence and the number cost no write.
_NUMBER = "UPDATE counters SET number = ?, stored = stored + ? WHERE one = 1 AND epoch = ?"
_NUMBER_AND_COUNT = "UPDATE counters SET number = ?, stored = stored + ?, body = ? WHERE one = 1 AND epoch = ?"


class SqliteJournal:
    """See the module. Raises StartError if the path can't be used."""

    def __init__(self, path: Path, *, durability: Durability = "full", accept_loss: int | None = None) -> None:
        self.path = path.expanduser().absolute()
        self._durability = durability
        self._reading = threading.Lock()
        self._live = LiveReader(self.path)
        self._closed = False
        self._passed_over = PassedOver(self.path)
        with contextlib.ExitStack() as opened:
            self._lock = opened.enter_context(lock(self.path))
            try:
                found = checks.inspect(self.path, accept_loss=accept_loss, must_be_whole=durability == "full")
                before = checks.begins_after(found)
                self._head = opened.enter_context(contextlib.closing(Head(self.path, before)))
                self._writer = opened.enter_context(contextlib.closing(self._open()))
                schema.migrate(self._writer, self.path)
                if changed := schema.first_change(self._writer):
                    raise checks.damaged(self.path, f"its table or index {changed} is not as it was made")
                self._id, self._epoch, self._number = self._begin(before)
                self._reader = self._open()
                self._reserve = Reserve(self.path)
            except (sqlite3.Error, OSError, UnicodeError) as error:
                if checks.says_damaged(error):
                    raise checks.damaged(self.path, str(error)) from error
                raise StartError(f"can't use {self.path} as a journal: {error}; give another journal.path") from error
            opened.pop_all()  # all is well: it stays open

    def commit(self, rows: Rows) -> None:
        """Write ``rows`` in one transaction. Raises sqlite3.Error or OSError: then they may be tried again.

        Raises JournalTaken if another queue has opened this journal since, and JournalRefused for rows that it can
        never take.
        """
        try:
            self._write(rows)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.reopen()  # the page may be whole on disk
            self._write(spare(self._writer, rows, self._passed_over))

    def _write(self, rows: Rows) -> None:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            stored = write_rows(writer, rows, self._passed_over.listed("batches") if rows.batches_before else "")
            number = self._number + 1
            if rows.counters:
                done = writer.execute(_NUMBER_AND_COUNT, (number, stored, rows.counters, self._epoch))
            else:
                done = writer.execute(_NUMBER, (number, stored, self._epoch))
            if done.rowcount != 1:
                raise self._taken()
            writer.execute("COMMIT")
        except BaseException as error:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            if is_full(error) or (is_write_error(error) and not self._reserve.fits_more()):
                self._reserve.release()  # the next try has that room
            if isinstance(error, (*NOT_THE_DISK, JournalRefused)):
                self._check_owner()  # or these rows contradict those of the queue that took it
            if isinstance(error, NOT_THE_DISK):
                raise JournalRefused(f"{type(error).__name__}: {error}") from error
            raise
        self._number = number
        self._head.advance(number)

    def fill_log(self) -> None:
        """Take the space of the log now, before the first commit: the first thousand are faster then."""
        if self._durability == "full":
            fill_log(self.path, LOG_BYTES)

    def fold_log(self) -> None:
        """Copy what is in the log into the database, as far as no reader needs it. What was committed stays on disk."""
        self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def has_room(self) -> bool:
        """Tell whether the disk has room for new jobs."""
        return self._reserve.is_held()

    def reopen(self) -> None:
        """Replace the writing connection: after a failed fsync the old one's pages can't be trusted."""
        if self._closed:  # its lock is gone too
            raise OSError(f"the journal {self.path} is closed")
        self._writer.close()
        self._writer = self._open()
        self._number = self._check_owner()  # the commit that failed may be there all the same

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
        """Tell whether there are ended batches for a commit with this time to forget."""
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

    def read_note(self) -> bytes:
        """Return what ``write_note`` kept; empty if there is nothing, or it can't be read."""
        return read_note(self.path)

    def write_note(self, body: bytes) -> None:
        """Keep a small note beside the database. Raises OSError."""
        try:
            write_note(self.path, body)
        except OSError:
            self._reserve.release()  # the disk may be full
            write_note(self.path, body)

    def close(self) -> None:
        """Close both connections (the last one folds the WAL into the database) and give the lock back."""
        if self._closed:
            return
        self._closed = True
        with self._reading:
            self._reader.close()
        self._writer.close()
        self._seal()
        self._head.close()
        self._reserve.release()
        self._lock.close()

    def _begin(self, before: Mark) -> tuple[str, int, int]:
        """Take the right to write from whoever had it; return id, epoch and number of the journal now."""
        take = "UPDATE counters SET journal = ?, epoch = max(epoch, ?) + 1, number = max(number, ?) + 1"
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.execute(take, before[:3])
        row = self._writer.execute("SELECT journal, epoch, number FROM counters").fetchone()
        self._writer.execute("COMMIT")
        mark = Mark(*row)
        self._head.write(mark)
        return mark[:3]

    def _seal(self) -> None:
        """Note what the database file is like, if all of it is in that file and nobody else has it open."""
        wal = self.path.with_name(self.path.name + "-wal")
        with contextlib.suppress(OSError):  # it can be started without
            if not wal.exists() and checks.is_small(self.path):
                self._head.write(Mark(self._id, self._epoch, self._number, checksum_of(self.path)))

    def _check_owner(self) -> int:
        """Return the number of the last commit. Raises JournalTaken if another queue has opened this journal since."""
        epoch, number = self._writer.execute("SELECT epoch, number FROM counters").fetchone()
        if epoch != self._epoch:
            raise self._taken()
        return int(number)

    def _taken(self) -> JournalTaken:
        return JournalTaken(
            f"another queue has opened the journal {self.path} (this one was its owner in epoch {self._epoch}): "
            "this one ends here, and what it had not acknowledged is not written"
        )

    def _open(self) -> sqlite3.Connection:
        return connect(self.path, self._durability)
