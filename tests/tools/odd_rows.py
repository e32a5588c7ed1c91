"""Rows of any journal that can't be read, whatever else is read with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Set
from typing import Any

from aiqueue.journal.base import Journal

Row = tuple[str, str]  #: ("jobs", id), ("states", id), ("keys", key) or ("batches", id)

_READS = {"jobs": "jobs", "weights": "jobs", "states": "states", "keys": "keys"}


def spoil(journal: Journal, odd: Set[Row]) -> None:
    """Let each read of one of these rows raise from now on."""

    def check(what: str, names: Iterable[str]) -> None:
        if not odd.isdisjoint((what, name) for name in names):
            raise sqlite3.DatabaseError("database disk image is malformed")

    def checked(read: Callable[..., Any], what: str) -> Callable[..., Any]:
        def read_checked(names: Iterable[str], **how: Any) -> Any:
            check(what, names := list(names))
            return read(names, **how)

        return read_checked

    def batch(batch_id: str, read: Callable[[str], Any] = journal.batch) -> Any:
        check("batches", [batch_id])
        return read(batch_id)

    for name, what in _READS.items():
        setattr(journal, name, checked(getattr(journal, name), what))
    journal.batch = batch
