"""The embedded journal: SQLite in WAL mode, one connection that writes and one that reads.

``synchronous=FULL`` makes a commit wait for the disk; that is what an acknowledgement stands on. A lock file keeps a
second queue actor (a zombie of an earlier one, or a second system on the same path) from writing the same journal.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

from aiqueue.config import Durability
from aiqueue.engine.effects import Rows
from aiqueue.engine.states import TERMINAL
from aiqueue.errors import StartError
from aiqueue.journal import schema
from aiqueue.journal.base import EndedRow, Recovered, StoredJob, StoredKey

_T = TypeVar("_T")
_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}
_CHUNK = 500  # variables in one IN (…); SQLite's own limit is 32,766
_CACHE_KIB = 32_768
_PAGE_BYTES = 8_192  # rows of a prompt each: twice the default measured 10 % faster
_CHECKPOINT_PAGES = 4_000  # 32 MB: a checkpoint per some 40,000 small jobs instead of per 1,000 pages

#: Rows per statement. A statement runs without Python's lock, so one of 500 rows costs one hand-over of the lock where
#: ``executemany`` costs 500, each of which a busy event loop can delay.
_SIZES = (512, 64, 8, 1)


def _statements(verb: str, table: str, columns: str, rest: str = "") -> dict[int, str]:
    row = f"({', '.join('?' for _ in columns.split(','))})"
    return {size: f"{verb} INTO {table} ({columns}) VALUES {', '.join([row] * size)} {rest}" for size in _SIZES}


# A commit whose end was in doubt (its fsync failed) is tried again, and then finds its own rows.
_INSERT_JOBS = _statements("INSERT", "jobs", "seq, id, header, payload", "ON CONFLICT DO NOTHING")
_PUT_STATES = _statements("INSERT OR REPLACE", "states", "seq, state, progress")
_PUT_RESULTS = _statements("INSERT OR REPLACE", "results", "seq, body")
_PUT_ATTEMPTS = _statements("INSERT OR REPLACE", "attempts", "seq, attempt, body")
_PUT_GATES = _statements("INSERT OR REPLACE", "gates", "key, body")
_PUT_KEYS = _statements("INSERT OR REPLACE", "idempotency", "key, job_id, digest, at")
_PUT_COUNTERS = "INSERT OR REPLACE INTO counters (one, body) VALUES (1, ?)"
_ENDED = "({})".format(", ".join(f"'{state}'" for state in sorted(TERMINAL)))
_LIVE = f"""
    SELECT jobs.seq, id, header, coalesce(state, 'queued'), coalesce(progress, x'')
    FROM jobs LEFT JOIN states USING (seq) WHERE state IS NULL OR state NOT IN {_ENDED} ORDER BY jobs.seq
"""
_STORED = """
    SELECT jobs.seq, id, header, coalesce(state, ''), coalesce(progress, x''), coalesce(body, x''), {payload}
    FROM jobs LEFT JOIN states USING (seq) LEFT JOIN results USING (seq)
"""
_PUT_SPEC = "INSERT OR REPLACE INTO schedules (id, spec) VALUES (?, ?)"
_PUT_SCHEDULE_STATE = "INSERT OR REPLACE INTO schedule_states (id, body) VALUES (?, ?)"
_SCHEDULES = "SELECT id, spec, body FROM schedules JOIN schedule_states USING (id) ORDER BY id"


class SqliteJournal:
    """See the module. Raises StartError if the path can't be used."""

    def __init__(self, path: Path, *, durability: Durability = "full") -> None:
        self.path = path.expanduser().absolute()
        self._durability = durability
        self._lock = _lock(self.path)
        self._reading = threading.Lock()
        self._closed = False
        try:
            self._writer = self._open()
            schema.migrate(self._writer, str(self.path))
            self._reader = self._open()
        except sqlite3.Error as error:
            self._lock.close()
            raise StartError(f"can't use {self.path} as a journal: {error}; give another journal.path") from error
        except StartError:
            self._lock.close()
            raise

    def commit(self, rows: Rows) -> None:
        """Write ``rows`` in one transaction. Raises sqlite3.Error; then nothing of it is written."""
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            _write(writer, _INSERT_JOBS, rows.jobs)
            _write(writer, _PUT_STATES, rows.states)
            _write(writer, _PUT_RESULTS, rows.results)
            _write(writer, _PUT_ATTEMPTS, rows.attempts)
            _write(writer, _PUT_GATES, rows.gates)
            _write(writer, _PUT_KEYS, rows.keys)
            _write_schedules(writer, rows.schedules)
            for part in _chunks(rows.deletes):
                for table in ("jobs", "states", "results", "attempts"):
                    writer.execute(f"DELETE FROM {table} WHERE seq IN {_marks(part)}", part)
            if rows.keys_before:
                writer.execute("DELETE FROM idempotency WHERE at < ?", (rows.keys_before,))
            if rows.counters:
                writer.execute(_PUT_COUNTERS, (rows.counters,))
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def reopen(self) -> None:
        """Replace the writing connection: after a failed fsync the old one's pages can't be trusted."""
        if self._closed:  # its lock is gone too
            raise OSError(f"the journal {self.path} is closed")
        self._writer.close()
        self._writer = self._open()

    @contextmanager
    def recover(self) -> Iterator[Recovered]:
        """Open a consistent view of the jobs that have not ended."""
        with self._reading:
            found = self._reader.execute("SELECT body FROM counters").fetchone()
            gates = self._reader.execute("SELECT key, body FROM gates").fetchall()
            schedules = self._reader.execute(_SCHEDULES).fetchall()
            yield Recovered(found[0] if found else b"", self._reader.execute(_LIVE), gates, schedules)

    def payloads(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return payloads by seq."""
        return dict(self._select("SELECT seq, payload FROM jobs WHERE seq IN {}", seqs))

    def jobs(self, ids: Iterable[str], *, with_payload: bool = False) -> dict[str, StoredJob]:
        """Return the jobs that are known, by id; ``payload`` is empty unless asked for."""
        query = _STORED.format(payload="payload" if with_payload else "x''") + " WHERE id IN {}"
        return {row[1]: StoredJob(*row) for row in self._select(query, list(ids))}

    def attempts(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the AttemptRecords of jobs by seq, the first attempt first."""
        found: dict[int, list[bytes]] = {}
        for seq, body in self._select("SELECT seq, body FROM attempts WHERE seq IN {} ORDER BY seq, attempt", seqs):
            found.setdefault(seq, []).append(body)
        return found

    def keys(self, keys: Sequence[str]) -> dict[str, StoredKey]:
        """Return the idempotency keys that are known."""
        rows = self._select("SELECT key, job_id, digest, at FROM idempotency WHERE key IN {}", keys)
        return {key: StoredKey(job_id, digest, at) for key, job_id, digest, at in rows}

    def ended(self, *, after_seq: int, limit: int) -> list[EndedRow]:
        """Return jobs that have ended, by seq."""
        query = f"SELECT seq, state, progress FROM states WHERE seq > ? AND state IN {_ENDED} ORDER BY seq LIMIT ?"
        with self._reading:
            return [EndedRow(*row) for row in self._reader.execute(query, (after_seq, limit))]

    def count_ended(self) -> int:
        """Return how many jobs that have ended are kept."""
        with self._reading:
            (count,) = self._reader.execute(f"SELECT count(*) FROM states WHERE state IN {_ENDED}").fetchone()
        return int(count)

    def dead_letters(self, *, before_seq: int, limit: int) -> list[StoredJob]:
        """Return dead letters, the newest first, without payloads."""
        query = _STORED.format(payload="x''") + " WHERE state = 'dead_letter' AND seq < ? ORDER BY seq DESC LIMIT ?"
        with self._reading:
            return [StoredJob(*row) for row in self._reader.execute(query, (before_seq, limit))]

    def _select(self, query: str, items: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of ``query``, whose ``{}`` stands for the list of ``items``."""
        with self._reading:
            for part in _chunks(items):
                yield from self._reader.execute(query.format(_marks(part)), part)

    def close(self) -> None:
        """Close both connections (the last one folds the WAL into the database) and give the lock back."""
        self._closed = True
        with self._reading:
            self._reader.close()
        self._writer.close()
        self._lock.close()

    def _open(self) -> sqlite3.Connection:
        # Prompts and answers are for the owner's eyes; the files that SQLite puts beside this one get its mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        # Autocommit mode: transactions begin and end where commit() says so.
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=64)
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[self._durability]}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return connection


def _write(writer: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[object, ...]]) -> None:
    at = 0
    for size, statement in statements.items():
        while len(rows) - at >= size:
            writer.execute(statement, list(chain.from_iterable(rows[at : at + size])))
            at += size


def _write_schedules(writer: sqlite3.Connection, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
    """Few rows, and what one says is gone is gone: one statement each, in order."""
    for schedule_id, spec, state in rows:
        if spec:
            writer.execute(_PUT_SPEC, (schedule_id, spec))
        if state:
            writer.execute(_PUT_SCHEDULE_STATE, (schedule_id, state))
        else:
            writer.execute("DELETE FROM schedules WHERE id = ?", (schedule_id,))
            writer.execute("DELETE FROM schedule_states WHERE id = ?", (schedule_id,))


def _lock(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")  # noqa: SIM115  # held while open
    except OSError as error:
        raise StartError(f"can't create the journal {path}: {error.strerror}; set journal.path") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StartError(
            f"the journal {path} is in use by another queue; end that one, or give this one its own journal.path"
        ) from error
    return file


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))


def _marks(items: Sequence[object]) -> str:
    return f"({', '.join('?' * len(items))})"
