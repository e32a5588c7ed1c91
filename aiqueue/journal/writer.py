"""Group commit: one thread takes all that is pending, commits it in one transaction, and tells the loop.

While a commit waits for the disk, the next one's rows gather; so the busier the queue, the more jobs share an fsync.
If a commit fails, its rows stay first in line and are tried again: nothing that memory already holds may be missing
on disk, and nothing is acknowledged until it is there. Only if the journal is another queue's by now, or can never take
these rows, the writer ends.

When nothing waits, the log is folded into the database a little at a time: a commit that has to do all of it at once
keeps everybody waiting for 20 ms.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from aiqueue.engine.effects import Rows
from aiqueue.journal.base import Journal, JournalRefused, JournalTaken

_log = logging.getLogger(__name__)
_RETRY_S = 0.5
_FOLD_COMMITS = 64  # some 450 pages, which take 2 ms


class Writer(Protocol):
    """What puts rows on disk in the order they come; see ``GroupCommitWriter``."""

    def append(self, rows: Rows) -> None:
        """Queue ``rows`` for the next commit. Never blocks on the disk."""
        ...

    def close(self) -> None:
        """Commit what is pending (one try) and end."""
        ...


class WriterMaker(Protocol):
    """Makes the writer of a journal."""

    def __call__(
        self,
        journal: Journal,
        *,
        on_commit: Callable[[int], None],
        on_failure: Callable[[Exception | None], None],
    ) -> Writer:
        """Return the writer; what the callbacks mean, ``GroupCommitWriter`` says."""
        ...


class GroupCommitWriter:
    """Owns the journal's writes.

    ``on_commit(count)`` is called from the writer thread after ``count`` batches, in the order of ``append``, are on
    disk; ``on_failure(error)`` when a commit failed (None: it works again; JournalTaken or
    JournalRefused: it was the last one).
    """

    def __init__(
        self,
        journal: Journal,
        *,
        on_commit: Callable[[int], None],
        on_failure: Callable[[Exception | None], None],
    ) -> None:
        self._journal = journal
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._pending = Rows()
        self._batches = 0
        self._unfolded = 0  # commits since the log was folded
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def append(self, rows: Rows) -> None:
        """Queue ``rows`` for the next commit. Never blocks on the disk."""
        with self._wake:
            self._pending.extend(rows)
            self._batches += 1
            self._wake.notify()

    def close(self) -> None:
        """Commit what is pending (one try) and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _take(self) -> tuple[Rows, int] | None:
        with self._wake:
            while not self._batches and not self._closing:
                self._wake.wait()
            taken, self._pending = (self._pending, self._batches), Rows()
            self._batches = 0
            return taken if taken[1] else None

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            rows, batches = taken
            if not self._commit(rows):
                return
            self._on_commit(batches)
            self._unfolded += 1
            if self._unfolded >= _FOLD_COMMITS and not self._batches:  # a look: one that comes just now waits 2 ms
                self._fold()

    def _fold(self) -> None:
        self._unfolded = 0
        try:
            self._journal.fold_log()
        except Exception as error:  # what is committed is in the log; whether more can be, the next commit finds out
            _log.warning("the log could not be folded into the database, which goes on without: %s", error)

    def _commit(self, rows: Rows) -> bool:
        failed = False
        while True:
            try:
                if failed:
                    self._journal.reopen()
                self._journal.commit(rows)
            except (JournalTaken, JournalRefused) as error:
                self._on_failure(error)
                return False
            except Exception as error:
                failed = True
                self._on_failure(error)
                if self._pause():
                    return False
            else:
                if failed:
                    self._on_failure(None)
                return True

    def _pause(self) -> bool:
        """Wait before the next try; tell whether the queue is being closed."""
        with self._wake:
            return self._wake.wait_for(lambda: self._closing, timeout=_RETRY_S)
