"""The embedded journal: SQLite in WAL mode, one connection that writes and one that reads.

``synchronous=FULL`` makes a commit wait for the disk; that is what an acknowledgement stands on. A lock file keeps a
second queue actor (a zombie of an earlier one, or a second system on the same path) from writing the same journal.
Where it fails (someone removed the file), the epoch does not: each start raises it, and a commit under an old one is
refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from aiqueue.config import Durability
from aiqueue.engine.effects import Rows
from aiqueue.errors import StartError
from aiqueue.journal import checks, schema
from aiqueue.journal.base import JournalRefused, JournalTaken
from aiqueue.journal.connection import LOG_BYTES, connect
from aiqueue.journal.failures import NOT_THE_DISK, is_damage, is_full, is_write_error
from aiqueue.journal.head import Head, Mark, checksum_of
from aiqueue.journal.identity import ANYTHING, Expected
from aiqueue.journal.lock import lock
from aiqueue.journal.log_space import fill_log
from aiqueue.journal.note import read_note, write_note
from aiqueue.journal.place import absolute
from aiqueue.journal.reserve import Reserve
from aiqueue.journal.rows import write_rows
from aiqueue.journal.sparing import spare
from aiqueue.journal.sqlite_reads import SqliteReads

# Part of every commit, and the same row and page as the counters themselves: the fence and the number cost no write.
_NUMBER = "UPDATE counters SET number = ?, stored = stored + ? WHERE one = 1 AND epoch = ?"
_NUMBER_AND_COUNT = "UPDATE counters SET number = ?, stored = stored + ?, body = ? WHERE one = 1 AND epoch = ?"


class SqliteJournal(SqliteReads):
    """See the module. Raises StartError if the path can't be used."""

    def __init__(
        self,
        path: Path,
        expected: Expected = ANYTHING,
        *,
        durability: Durability = "full",
        accept_loss: int | None = None,
    ) -> None:
        super().__init__(absolute(path))
        self._durability = durability
        self._closed = False
        checks.expect(self.path, expected)
        with contextlib.ExitStack() as opened:
            self._lock = opened.enter_context(lock(self.path))
            try:
                before = checks.inspect(
                    self.path, expected, accept_loss=accept_loss, must_be_whole=durability == "full"
                )
                self._head = opened.enter_context(contextlib.closing(Head(self.path, before)))
                self._writer = opened.enter_context(contextlib.closing(self._open()))
                schema.migrate(self._writer, self.path)
                if changed := schema.first_change(self._writer):
                    raise checks.damaged(self.path, f"its table or index {changed} is not as it was made")
                self.id, self.epoch, self._number = self._begin(before)
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
                done = writer.execute(_NUMBER_AND_COUNT, (number, stored, rows.counters, self.epoch))
            else:
                done = writer.execute(_NUMBER, (number, stored, self.epoch))
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
                self._head.write(Mark(self.id, self.epoch, self._number, checksum_of(self.path)))

    def _check_owner(self) -> int:
        """Return the number of the last commit. Raises JournalTaken if another queue has opened this journal since."""
        epoch, number = self._writer.execute("SELECT epoch, number FROM counters").fetchone()
        if epoch != self.epoch:
            raise self._taken()
        return int(number)

    def _taken(self) -> JournalTaken:
        return JournalTaken(
            f"another queue has opened the journal {self.path} (this one was its owner in epoch {self.epoch}): "
            "this one ends here, and what it had not acknowledged is not written"
        )

    def _open(self) -> sqlite3.Connection:
        return connect(self.path, self._durability)
