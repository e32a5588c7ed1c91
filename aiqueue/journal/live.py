"""What a start reads of a journal: all that has not ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

from aiqueue.journal import checks, queries
from aiqueue.journal.base import Recovered

_any_text = methodcaller("decode", "utf-8", "surrogateescape")  # reads what is no UTF-8 too


class LiveReader:
    """Reads the journal at ``path``.

    A text that is no UTF-8 ends the read. Reading texts so that it does not costs some 3 µs each, so that is done only
    from the second time on, after the first time has met one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text: Callable[[bytes], Any] = str

    @contextmanager
    def read(self, reader: sqlite3.Connection) -> Iterator[Recovered]:
        """Open what is there. Raises ValueError the first time it meets a text that is no UTF-8."""
        read = reader.execute
        # Closed whatever happens: while it is at a row, this connection goes on seeing the database as it was then.
        with checks.refused_if_damaged(self._path), closing(reader.cursor()) as live:
            try:
                reader.text_factory = _any_text
                found = read("SELECT CAST(body AS BLOB) FROM counters").fetchone()
                gates = read("SELECT key, CAST(body AS BLOB) FROM gates").fetchall()
                schedules = read(queries.SCHEDULES).fetchall()
                batches = read(f"{queries.BATCHES} WHERE ended_at = 0").fetchall()
                last, parts = read(queries.LAST).fetchone(), read(queries.LIVE_PARTS).fetchall()
                reader.text_factory = self._text
                live.execute(queries.LIVE)
                yield Recovered(found[0] if found else b"", live, gates, schedules, batches, last[0], last[1], parts)
            except sqlite3.OperationalError as error:
                if self._text is _any_text or not checks.is_no_text(error):
                    raise
                self._text = _any_text
                raise ValueError(str(error)) from error
            finally:
                reader.text_factory = str
