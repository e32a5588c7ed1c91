"""The SQLite schema, as a list of steps. A released step is never edited: a change is a new one at the end."""

from __future__ import annotations

import sqlite3

from aiqueue.errors import StartError

#: ``jobs`` is written once per job, in the order of acceptance, so that a submit only appends (payload last: reading a
#: header does not touch its pages). ``states`` has a row from the first claim on; no row means queued.
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
)
VERSION = len(STEPS)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the database to ``VERSION`` in one transaction; refuse one that a newer release has written."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > VERSION:
        raise StartError(
            f"the journal {path} has schema {found}, but this release knows only up to {VERSION}: "
            "start the newer release, or give another journal.path"
        )
    if found == VERSION:
        return
    steps = "".join(STEPS[found:])
    connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
