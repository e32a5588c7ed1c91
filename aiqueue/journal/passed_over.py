"""Rows that can't be read or deleted because they are damaged. Retention skips them until the next start."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeVar

from aiqueue.journal import queries
from aiqueue.journal.base import EndedRow, OldKey
from aiqueue.journal.old_keys import old_keys

Kind = Literal["jobs", "batches", "idempotency keys"]
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class PassedOver:
    """The numbers of such rows: seqs of jobs, numbers of batches, rowids of idempotency keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers: dict[Kind, frozenset[int]] = {}

    def listed(self, kind: Kind) -> str:
        """Return the numbers as SQL, for ``IN (…)``."""
        return ", ".join(map(str, self._numbers.get(kind, ())))

    def add(self, kind: Kind, numbers: Iterable[int]) -> bool:
        """Skip these from now on. Log those that are new, and return True if there are any."""
        known = self._numbers.get(kind, frozenset())
        new = sorted(frozenset(numbers) - known)
        if new:
            self._numbers[kind] = known.union(new)
            shown = ", ".join(map(str, new[:10])) + (f" and {len(new) - 10} more" if len(new) > 10 else "")
            _log.error(
                "the journal %s is damaged: it keeps %s that can't be read or deleted (numbers: %s). "
                "Mend it with the queue stopped; docs/operations.md says how",
                *(self._path, kind, shown),
            )
        return bool(new)

    def ended(self, reader: sqlite3.Connection, after: tuple[float, int], before: float, limit: int) -> list[EndedRow]:
        """Return what ``Journal.ended`` returns, without jobs whose ids can't be read."""

        def read() -> list[EndedRow]:
            asked = queries.BY_END.format(self.listed("jobs")), (*after, before, limit)
            return [EndedRow(at, seq, _text(job_id)) for at, seq, job_id in reader.execute(*asked).fetchall()]

        def candidates() -> Iterable[int]:
            asked = queries.SEQS_BY_END.format(self.listed("jobs")), (*after, before, limit)
            return [seq for (seq,) in reader.execute(*asked).fetchall()]

        def probe(seq: int) -> None:
            (job_id,) = reader.execute("SELECT id FROM jobs WHERE seq = ?", (seq,)).fetchone() or (None,)
            _text(job_id)

        return self._read("jobs", read, candidates, probe)

    def old_keys(
        self,
        reader: sqlite3.Connection,
        lock: AbstractContextManager[object],
        before: float,
        limit: int,
        stuck: Collection[str],
    ) -> list[OldKey]:
        """Return what ``Journal.old_keys`` returns, without keys that can't be read. See ``old_keys`` for the lock."""
        kind: Kind = "idempotency keys"

        def select(which: str, asked: Sequence[float]) -> list[tuple[int, OldKey]]:
            return [
                (number, OldKey(_text(key), _text(job_id), bool(lives), float(end)))
                for number, key, job_id, lives, end in old_keys(reader, lock, which, asked)
            ]

        def read() -> list[tuple[int, OldKey]]:
            return select(queries.BY_AGE.format(self.listed(kind)), (before, limit))

        def candidates() -> Iterable[int]:
            which = queries.BY_AGE.format(self.listed(kind))
            with lock:
                found = reader.execute(f"SELECT rowid FROM idempotency WHERE {which}", (before, limit)).fetchall()
            return [number for (number,) in found]

        def probe(number: int) -> None:
            select("rowid = ?", (number,))

        while True:
            found = self._read(kind, read, candidates, probe)
            if not self.add(kind, [number for number, key in found if key.key in stuck]):
                return [key for _, key in found]

    def _read(
        self,
        kind: Kind,
        read: Callable[[], list[_T]],
        candidates: Callable[[], Iterable[int]],
        probe: Callable[[int], object],
    ) -> list[_T]:
        """Return what ``read`` returns. If it raises, skip the candidates for which ``probe`` raises, and try again."""
        while True:
            try:
                return read()
            except (sqlite3.DatabaseError, ValueError):
                if not self.add(kind, [number for number in candidates() if _raises(probe, number)]):
                    raise


def _raises(probe: Callable[[int], object], number: int) -> bool:
    try:
        probe(number)
    except (sqlite3.DatabaseError, ValueError):
        return True
    return False


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} is no text")
    return value
