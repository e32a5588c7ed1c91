"""The SQLite schema, as a list of steps. A released step is never edited: a change is a new one at the end."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from aiqueue.engine.soundness import end_in
from aiqueue.engine.states import TERMINAL
from aiqueue.errors import StartError
from aiqueue.protocol import header_of

#: ``jobs`` is written once per job, in the order of acceptance, so that a submit only appends (payload last: reading a
#: header does not touch its pages). What jobs that were accepted together have in common is in ``shared``, once.
#: ``states`` has a row from the first claim on; no row means queued. ``counters`` has one row, which every commit
#: writes: who may write (``epoch``), which commit it was (``number``), how many jobs are ``stored``.
STEPS = (
    """
    CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, header BLOB NOT NULL, payload BLOB NOT NULL);
    CREATE UNIQUE INDEX jobs_by_id ON jobs (id);
    CREATE TABLE states (seq INTEGER PRIMARY KEY, state TEXT NOT NULL, progress BLOB NOT NULL);
    CREATE TABLE results (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE counters (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL);
    """,
    """
    CREATE TABLE attempts (seq INTEGER, attempt INTEGER, body BLOB NOT NULL, PRIMARY KEY (seq, attempt)) WITHOUT ROWID;
    CREATE TABLE gates (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE idempotency (key TEXT PRIMARY KEY, job_id TEXT NOT NULL, digest BLOB NOT NULL, at REAL NOT NULL);
    CREATE INDEX idempotency_by_time ON idempotency (at);
    CREATE INDEX dead_letters ON states (seq) WHERE state = 'dead_letter';
    """,
    """
    CREATE TABLE schedules (id TEXT PRIMARY KEY, spec BLOB NOT NULL);
    CREATE TABLE schedule_states (id TEXT PRIMARY KEY, body BLOB NOT NULL);
    """,
    """
    ALTER TABLE counters ADD COLUMN journal TEXT NOT NULL DEFAULT '';
    ALTER TABLE counters ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE counters ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE counters ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
    INSERT OR IGNORE INTO counters (one, body) VALUES (1, x'');
    UPDATE counters SET stored = (SELECT count(*) FROM jobs);
    """,
    """
    CREATE TABLE batches (no INTEGER PRIMARY KEY, id TEXT NOT NULL, spec BLOB NOT NULL);
    CREATE UNIQUE INDEX batches_by_id ON batches (id);
    CREATE TABLE batch_states (no INTEGER PRIMARY KEY, body BLOB NOT NULL, ended_at REAL NOT NULL);
    CREATE TABLE parts (
        no INTEGER, first_seq INTEGER, count INTEGER NOT NULL, first_index INTEGER NOT NULL, PRIMARY KEY (no, first_seq)
    ) WITHOUT ROWID;
    CREATE TABLE ends (no INTEGER, n INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (no, n)) WITHOUT ROWID;
    """,
    "CREATE INDEX batches_by_end ON batch_states (ended_at) WHERE ended_at > 0;",
    "CREATE TABLE shared (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, metadata BLOB NOT NULL);",
    f"""
    ALTER TABLE states ADD COLUMN ended_at REAL NOT NULL DEFAULT 0;
    UPDATE states SET ended_at = end_in(progress)
        WHERE state IN ({", ".join(f"'{state}'" for state in sorted(TERMINAL))});
    CREATE INDEX states_by_end ON states (ended_at, seq) WHERE ended_at > 0;
    """,
    # An index entry ends in its row's seq anyway. To name it stores it twice, which costs each job's end.
    "DROP INDEX states_by_end; CREATE INDEX states_by_end ON states (ended_at) WHERE ended_at > 0;",
    # Ids of jobs that were submitted together under a key begin alike.
    """
    ALTER TABLE idempotency ADD COLUMN first_seq INTEGER;
    ALTER TABLE idempotency ADD COLUMN last_seq INTEGER;
    ALTER TABLE idempotency ADD COLUMN batch INTEGER;
    UPDATE idempotency SET (first_seq, last_seq) = (
        SELECT min(seq), max(seq) FROM jobs
        WHERE id BETWEEN job_id AND CASE length(job_id) WHEN 36 THEN substr(job_id, 1, 24) || 'g' ELSE job_id END
    );
    UPDATE idempotency SET batch = (
        SELECT no FROM batches WHERE id = (SELECT batch_in(header) FROM jobs WHERE seq = last_seq)
    );
    CREATE INDEX idempotency_by_job ON idempotency (first_seq);
    """,
)
VERSION = len(STEPS)
_MADE = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the database to ``VERSION`` in one transaction. Raises StartError for one that a newer release has written.

    One with jobs is copied first, to ``PATH.schema-N``: an earlier release can't read what this one makes of it.
    """
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    refuse_newer(found, path)
    if found == VERSION:
        return
    if found and connection.execute("SELECT 1 FROM jobs LIMIT 1").fetchone():
        _back_up(connection, path.with_name(f"{path.name}.schema-{found}"))
    now = time.time()
    connection.create_function("batch_in", 1, _batch_in)
    connection.create_function("end_in", 1, lambda progress: _end_in(progress, now), deterministic=True)
    steps = "".join(STEPS[found:])
    connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")


def first_change(connection: sqlite3.Connection) -> str:
    """Return the name of a table or index that is not as ``STEPS`` make it: its text in the file is damaged.

    SQLite itself misses a flipped bit in the name of a column, until a statement asks for it.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh, Path())
        made = fresh.execute(_MADE).fetchall()
    there = set(connection.execute(_MADE))
    return next((name for name, sql in made if (name, sql) not in there), "")


def _end_in(progress: bytes, now: float) -> float:
    """Return when a job ended: not later than now, whatever clock it was written under; never 0.

    A row that says no time is its own job's error, and not the journal's.
    """
    return min(end_in(progress, now), now)


def _batch_in(header: bytes | None) -> str | None:
    """Return the batch of a job, if it has one."""
    found = header_of(header) if header else None
    return found.batch_id if found else None


def refuse_newer(found: int, path: Path) -> None:
    """Raise StartError for a database of schema ``found`` that a newer release has written."""
    if found > VERSION:
        raise StartError(
            f"the journal {path} has schema {found}, but this release knows only up to {VERSION}: "
            "start the newer release, or give another journal.path"
        )


def _back_up(connection: sqlite3.Connection, copy: Path) -> None:
    unfinished = copy.with_name(copy.name + ".part")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(unfinished)) as target:
            connection.backup(target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise StartError(
            f"the journal must be brought to a new schema, but no copy of it could be made at {copy} ({error}); "
            "make room for one there; nothing was changed"
        ) from error
    unfinished.replace(copy)
