"""A journal of each kind: what one promises, all promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiqueue.journal.base import Journal
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.testing.memory_journal import MemoryJournal

Reopen = Callable[[Journal], Journal]


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Return an empty journal of each kind."""
    made: Journal = MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "journal.db")
    yield made
    made.close()


@pytest.fixture
def after_a_crash(journal: Journal) -> Iterator[Reopen]:
    """Return a function that gives what another process would find."""
    opened: list[Journal] = []

    def reopen(old: Journal) -> Journal:
        if isinstance(old, MemoryJournal):
            return old.crash()
        assert isinstance(old, SqliteJournal)
        old.close()
        opened.append(SqliteJournal(old.path))
        return opened[-1]

    yield reopen
    for other in opened:
        other.close()
