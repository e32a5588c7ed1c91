"""Stateful tests of a queue, on the real journal instead of one in memory."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine

from aiqueue.journal.base import Journal
from aiqueue.journal.sqlite import SqliteJournal
from tests.tools.service_harness import ServiceHarness


class OnSqlite(RuleBasedStateMachine):
    """Stands before the test that it changes: ``class SqliteX(OnSqlite, X)``."""

    loop: asyncio.AbstractEventLoop
    queue: ServiceHarness

    def make_journal(self) -> Journal:
        """Return a journal that waits for no disk."""
        self.folder = tempfile.TemporaryDirectory()
        return SqliteJournal(Path(self.folder.name) / "journal.db", durability="off")

    def reopen(self) -> Journal:
        """Close the journal in an orderly way: what a kill leaves, other tests know."""
        self.loop.run_until_complete(self.queue.service.close())
        return SqliteJournal(Path(self.folder.name) / "journal.db", durability="off")

    def teardown(self) -> None:
        """End, and remove the files."""
        super().teardown()
        self.folder.cleanup()
