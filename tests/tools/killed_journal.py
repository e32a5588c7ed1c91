"""Journals whose queue was killed: nothing says what the database file was like, so a changed byte is not refused."""

from __future__ import annotations

from pathlib import Path

from aiqueue.config import Settings
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.testing import jobs


def open_unsealed(path: Path) -> SqliteJournal:
    """Return a journal whose ``close`` leaves it as a kill does."""
    journal = SqliteJournal(path, durability="off")
    journal._seal = lambda: None  # type: ignore[method-assign]
    return journal


def settings_at(path: Path) -> Settings:
    """Return the settings of a queue whose journal is at ``path``."""
    config = jobs.settings()
    return config.model_copy(update={"journal": config.journal.model_copy(update={"path": path})})
