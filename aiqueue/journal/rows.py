"""What a commit holds, as SQL: few statements with many rows each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

from aiqueue.engine.effects import SPENT, Rows
from aiqueue.engine.states import JobState
from aiqueue.journal import queries
from aiqueue.journal.base import FORGOTTEN_AT_ONCE, JournalRefused

_T = TypeVar("_T")
_CHUNK = 500  # variables in one IN (…); SQLite's own limit is 32,766

#: Rows per statement. A statement runs without Python's lock, so one of 500 rows costs one hand-over of the lock where
#: ``executemany`` costs 500, each of which a busy event loop can delay.
_SIZES = (512, 64, 8, 1)


def _statements(verb: str, table: str, columns: str, rest: str = "") -> dict[int, str]:
    row = f"({', '.join('?' for _ in columns.split(','))})"
    return {size: f"{verb} INTO {table} ({columns}) VALUES {', '.join([row] * size)} {rest}" for size in _SIZES}


# A commit whose end was in doubt (its fsync failed) is tried again, and then finds its own rows.
_INSERT_JOBS = _statements("INSERT", "jobs", "seq, id, header, payload", "ON CONFLICT DO NOTHING")
_PUT_SHARED = _statements("INSERT OR REPLACE", "shared", "first_seq, last_seq, metadata")
_FORGET_SHARED = """
    DELETE FROM shared
    WHERE first_seq IN (SELECT (SELECT max(first_seq) FROM shared WHERE first_seq <= column1) FROM (VALUES {}))
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE seq BETWEEN first_seq AND last_seq)
"""
_PUT_STATES = _statements("INSERT OR REPLACE", "states", "seq, state, progress, ended_at")
_PUT_RESULTS = _statements("INSERT OR REPLACE", "results", "seq, body")
_PUT_ATTEMPTS = _statements("INSERT OR REPLACE", "attempts", "seq, attempt, body")
_PUT_GATES = _statements("INSERT OR REPLACE", "gates", "key, body")
_PUT_KEYS = _statements("INSERT OR REPLACE", "idempotency", "key, job_id, digest, at, first_seq, last_seq, batch")
_INSERT_BATCHES = _statements("INSERT", "batches", "no, id, spec", "ON CONFLICT DO NOTHING")
_PUT_BATCH_STATES = _statements("INSERT OR REPLACE", "batch_states", "no, body, ended_at")
_PUT_PARTS = _statements("INSERT OR REPLACE", "parts", "no, first_seq, count, first_index")
_PUT_ENDS = _statements("INSERT OR REPLACE", "ends", "no, n, seq")
_ENDS_OF_KEYS = f"""
    SELECT max(states.ended_at), max(states.state != '{JobState.DEAD_LETTER}'), keys.rowid
    FROM states CROSS JOIN idempotency AS keys
        ON keys.first_seq = (SELECT max(first_seq) FROM idempotency WHERE first_seq <= states.seq)
        AND keys.last_seq >= states.seq
    WHERE states.seq IN {{}} GROUP BY keys.rowid
"""
_KEEP_KEY_LONGER = f"""
    UPDATE idempotency SET at = max(at, ?), batch = coalesce(batch, CASE WHEN ? THEN {SPENT} END) WHERE rowid = ?
"""
_KEEP_KEY = "UPDATE idempotency SET at = ? WHERE key = ? AND job_id = ?"
_FORGET_KEYS = """
    DELETE FROM idempotency WHERE first_seq IN (SELECT first_seq FROM parts WHERE no IN {}) AND batch IN {}
"""
_FORGET_OF_BATCH = (
    "DELETE FROM parts WHERE no = ? AND first_seq IN (SELECT first_seq FROM parts WHERE no = ? LIMIT ?)",
    "DELETE FROM ends WHERE no = ? AND n IN (SELECT n FROM ends WHERE no = ? LIMIT ?)",
)
_PUT_SPEC = "INSERT OR REPLACE INTO schedules (id, spec) VALUES (?, ?)"
_PUT_SCHEDULE_STATE = "INSERT OR REPLACE INTO schedule_states (id, body) VALUES (?, ?)"


def write_rows(writer: sqlite3.Connection, rows: Rows, kept: str = "") -> int:
    """Write all but the counters, in the transaction that is open; return by how many jobs the journal has grown.

    ``kept``: numbers of batches that are not forgotten, however old, as SQL.
    Raises JournalRefused for a job or batch that is not the one of that id or number in the journal.
    """
    stored = 0
    rows.spread()
    if rows.deletes or rows.dropped:
        stored -= _delete_jobs(writer, rows.deletes)
        rows = without_deleted(rows)
    if rows.free_keys:  # before keys are put: one that is used again stays
        writer.executemany("DELETE FROM idempotency WHERE key = ? AND job_id = ?", rows.free_keys)
    inserted = _write(writer, _INSERT_JOBS, rows.jobs)
    if inserted < len(rows.jobs):
        _check_same(writer, "SELECT seq, id FROM jobs", "seq", [row[:2] for row in rows.jobs])
    stored += inserted
    if rows.shared:
        _write(writer, _PUT_SHARED, rows.shared)
    for part in chunks(rows.deletes):  # when all is there that this commit adds
        writer.execute(_FORGET_SHARED.format(", ".join(["(?)"] * len(part))), part)
    _write(writer, _PUT_STATES, rows.states)
    _write(writer, _PUT_RESULTS, rows.results)
    _write(writer, _PUT_ATTEMPTS, rows.attempts)
    _write(writer, _PUT_GATES, rows.gates)
    _write(writer, _PUT_KEYS, rows.keys)
    _write_schedules(writer, rows.schedules)
    if rows.batch_states or rows.dropped or rows.batches_before:
        _write_batches(writer, rows, kept)
    if rows.key_times:
        writer.executemany(_KEEP_KEY, rows.key_times)
    return stored


def without_deleted(rows: Rows) -> Rows:
    """Return ``rows`` without those of jobs and batches that they delete: no deleted number comes back."""
    jobs, batches = frozenset(rows.deletes), frozenset(rows.dropped)
    return replace(
        rows,
        jobs=[row for row in rows.jobs if row[0] not in jobs],
        states=[row for row in rows.states if row[0] not in jobs],
        results=[row for row in rows.results if row[0] not in jobs],
        attempts=[row for row in rows.attempts if row[0] not in jobs],
        keys=[row for row in rows.keys if row.batch not in batches],
        batches=[row for row in rows.batches if row[0] not in batches],
        batch_states=[row for row in rows.batch_states if row[0] not in batches],
        parts=[row for row in rows.parts if row[0] not in batches],
        ends=[row for row in rows.ends if row[0] not in batches],
    )


def _delete_jobs(writer: sqlite3.Connection, seqs: Sequence[int]) -> int:
    """Delete jobs, and note their ends with their keys; return how many there were."""
    count = 0
    for part in chunks(seqs):
        if ends := writer.execute(_ENDS_OF_KEYS.format(marks(part)), part).fetchall():
            writer.executemany(_KEEP_KEY_LONGER, ends)
        for table in ("states", "results", "attempts"):
            writer.execute(f"DELETE FROM {table} WHERE seq IN {marks(part)}", part)
        count += writer.execute(f"DELETE FROM jobs WHERE seq IN {marks(part)}", part).rowcount
    return count


def _check_same(writer: sqlite3.Connection, select: str, column: str, rows: Sequence[tuple[int, str]]) -> None:
    """Raise JournalRefused unless the journal has exactly these rows, as after a commit that is repeated."""
    for part in chunks(rows):
        numbers = [number for number, _ in part]
        there = dict(writer.execute(f"{select} WHERE {column} IN {marks(numbers)}", numbers).fetchall())
        for number, name in part:
            if there.get(number) != name:
                table = select.rpartition(" ")[2]
                said = f"{name!r} can't become number {number} of {table}: the id or number is taken"
                raise JournalRefused(said, name)


def _write_batches(writer: sqlite3.Connection, rows: Rows, kept: str) -> None:
    for part in chunks(rows.dropped):
        writer.execute(_FORGET_KEYS.format(marks(part), marks(part)), [*part, *part])
        for table in ("batches", "batch_states", "parts", "ends"):
            writer.execute(f"DELETE FROM {table} WHERE no IN {marks(part)}", part)
    if _write(writer, _INSERT_BATCHES, rows.batches) < len(rows.batches):
        _check_same(writer, "SELECT no, id FROM batches", "no", [row[:2] for row in rows.batches])
    _write(writer, _PUT_BATCH_STATES, rows.batch_states)
    _write(writer, _PUT_PARTS, rows.parts)
    _write(writer, _PUT_ENDS, rows.ends)
    if rows.batches_before:
        _forget_batches(writer, rows.batches_before, kept)


def old_batches(connection: sqlite3.Connection, before: float, kept: str) -> list[int]:
    """Return the batches that one commit may forget, the one that ended first at the beginning."""
    found = connection.execute(queries.OLD_BATCHES.format(kept), (before, FORGOTTEN_AT_ONCE)).fetchall()
    return [no for (no,) in found]


def _forget_batches(writer: sqlite3.Connection, before: float, kept: str) -> None:
    """Delete rows of batches that ended before a time, a batch itself when nothing else is left of it.

    Its jobs ended before it did, so nobody finds them missing from what is left.
    """
    left = FORGOTTEN_AT_ONCE
    for no in old_batches(writer, before, kept):
        for statement in _FORGET_OF_BATCH:
            left -= writer.execute(statement, (no, no, left)).rowcount
        if left <= 0:
            return
        for table in ("batches", "batch_states"):
            writer.execute(f"DELETE FROM {table} WHERE no = ?", (no,))
        left -= 1


def _write(writer: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[object, ...]]) -> int:
    """Write ``rows``; return how many were written."""
    at = count = 0
    for size, statement in statements.items():
        while len(rows) - at >= size:
            count += writer.execute(statement, list(chain.from_iterable(rows[at : at + size]))).rowcount
            at += size
    return count


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


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield ``items`` in parts that one ``IN (…)`` can hold."""
    return (items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))


def marks(items: Sequence[object]) -> str:
    """Return the ``(?, ?, …)`` for ``items``."""
    return f"({', '.join('?' * len(items))})"


def within(
    rows: Iterable[tuple[Any, ...]], size_of: Callable[[tuple[Any, ...]], int], limit: int
) -> Iterator[tuple[Any, ...]]:
    """Yield rows up to the first with which they have more than ``limit`` bytes in all."""
    size = 0
    for row in rows:
        yield row
        size += size_of(row)
        if size > limit:
            return
