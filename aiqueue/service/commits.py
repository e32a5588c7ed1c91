"""From effects to answers: rows go to the writer thread; events and replies leave when their commit is on disk.

Appending is synchronous, so a caller that goes away in the middle of its call can only abandon the wait, never a
mutation half done.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from aiqueue.engine.effects import Effects, Rows
from aiqueue.errors import JournalUnavailable
from aiqueue.journal.base import Journal, JournalRefused, JournalTaken
from aiqueue.journal.failures import what_to_do
from aiqueue.journal.writer import GroupCommitWriter, WriterMaker
from aiqueue.protocol import Event
from aiqueue.service.faults import COMMIT

_log = logging.getLogger(__name__)

Committed = asyncio.Future[None]
P = ParamSpec("P")
T = TypeVar("T")


class CommitPipeline:
    """Keeps effects in order between the engine and the world. Lives on the running event loop."""

    def __init__(
        self,
        journal: Journal,
        publish: Callable[[list[Event]], None],
        *,
        writer: WriterMaker = GroupCommitWriter,
        on_fault: Callable[[str, Exception], None] = lambda what, error: None,
        check_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_room = journal.has_room
        self._publish, self._on_fault = publish, on_fault
        self._check_open = check_open
        self._waiting: deque[tuple[Effects, Committed]] = deque()
        self._watched: list[list[Rows]] = []  # one for each read under way
        self._error: Exception | None = None
        self._taken: JournalTaken | JournalRefused | None = None
        self._progress_at = self._loop.time()
        self._writer = writer(journal, on_commit=self._on_commit, on_failure=self._on_failure)

    def append(self, effects: Effects) -> Committed:
        """Hand over one command's effects; the future is done when they, and all before them, are on disk.

        Shield it when awaiting: other callers may wait for the same one. It raises JournalUnavailable where they never
        will be.
        """
        if not effects.rows:
            return self.settled()
        done: Committed = self._loop.create_future()
        if self._taken is not None:
            _refuse(done, self._taken)
            return done
        if not self._waiting:
            self._progress_at = self._loop.time()
        self._waiting.append((effects, done))
        for rows in self._watched:
            rows.append(effects.rows)
        self._writer.append(effects.rows)
        return done

    def settled(self) -> Committed:
        """Return a future that is done when all that was appended so far is on disk."""
        if self._waiting:
            return self._waiting[-1][1]
        done: Committed = self._loop.create_future()
        if self._taken is not None:
            _refuse(done, self._taken)
        else:
            done.set_result(None)
        return done

    @contextmanager
    def watched(self) -> Iterator[Sequence[Rows]]:
        """Yield what a read of the journal may miss that is made inside: rows not on disk yet, and those to come."""
        rows = [effects.rows for effects, _ in self._waiting]
        self._watched.append(rows)
        try:
            yield rows
        finally:
            self._watched = [other for other in self._watched if other is not rows]  # equal ones are others'

    async def read(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run a read of the journal in a thread and return what it returns.

        Raises QueueUnavailable if the queue has stopped meanwhile, whatever came of the read: its journal may have been
        closed under it. An error says nothing about a row then, and ``work`` may have taken one for a row's fault.
        """
        try:
            found = await asyncio.to_thread(work, *args, **named)
        except Exception:
            self._check_open()
            raise
        self._check_open()
        return found

    def waits_s(self) -> float:
        """Return for how long the oldest commit has been under way; 0 while commits fail: that is no hang.

        Endless where no commit can succeed any more: whoever watches is to end this process.
        """
        if self._taken is not None:
            return math.inf
        if not self._waiting or self._error is not None:
            return 0.0
        return self._loop.time() - self._progress_at

    def check(self) -> None:
        """Raise JournalUnavailable while nothing new may be accepted: the last commit failed, or the disk is full."""
        if self._taken is not None:
            raise JournalUnavailable(str(self._taken))
        if self._error is not None:
            raise JournalUnavailable(f"the journal can't be written ({self._error}); {what_to_do(self._error)}")
        if not self._has_room():
            raise JournalUnavailable("the journal's disk is full: make room on it, the queue goes on by itself")

    async def close(self) -> None:
        """Commit what is pending and end the writer. Whoever waits for what can't be written is told so."""
        await asyncio.to_thread(self._writer.close)
        await asyncio.sleep(0)  # the last commit's callback
        self._give_up(f"the journal could not be written to the end ({self._error})")

    def _give_up(self, reason: object) -> None:
        """Tell whoever waits for a commit that there will be none."""
        for _, done in self._waiting:
            _refuse(done, reason)
        self._waiting.clear()

    def _on_commit(self, batches: int) -> None:
        self._loop.call_soon_threadsafe(self._committed, batches)

    def _on_failure(self, error: Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._set_error, error)

    def _committed(self, batches: int) -> None:
        self._progress_at = self._loop.time()
        for _ in range(batches):
            effects, done = self._waiting.popleft()
            try:
                self._publish(effects.events)
            except Exception as error:  # the numbers are taken: readers would get other jobs' events
                self._on_fault("the event log", error)
            if not done.done():
                done.set_result(None)

    def _set_error(self, error: Exception | None) -> None:
        if isinstance(error, JournalTaken | JournalRefused):
            _log.critical("%s", error)
            self._taken = error
            if isinstance(error, JournalRefused):
                self._on_fault(COMMIT, error)
            self._give_up(error)
        elif error is None:
            _log.warning("the journal can be written again")
        elif self._error is None:
            _log.error("the journal can't be written, no job is accepted until it can: %s", error)
        self._error = error


def _refuse(done: Committed, reason: object) -> None:
    if not done.done():
        done.set_exception(JournalUnavailable(str(reason)))
        done.exception()  # seen: there may be nobody who waits
