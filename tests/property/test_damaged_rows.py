"""One value of one row of the journal is damaged: retention forgets every other row that is due."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from aiqueue.engine.effects import KeyRow, Rows
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.testing.jobs import settings
from tests.tools.service_harness import ServiceHarness

_UNITS = range(101, 106)  # each a job with a key, in a batch of its own; a new job gets number 1
_COLUMNS = {
    "jobs": ("seq", "id", "header", "payload"),
    "states": ("seq", "state", "progress", "ended_at"),
    "results": ("seq", "body"),
    "attempts": ("seq", "attempt", "body"),
    "shared": ("first_seq", "last_seq", "metadata"),
    "idempotency": ("key", "job_id", "digest", "at", "first_seq", "last_seq", "batch"),
    "batches": ("no", "id", "spec"),
    "batch_states": ("no", "body", "ended_at"),
    "parts": ("no", "first_seq", "count", "first_index"),
    "ends": ("no", "n", "seq"),
}
_PLACES = [(table, column) for table, columns in _COLUMNS.items() for column in columns]
_VALUES = [
    "CAST(x'ff41' AS TEXT)",
    "x'c1'",
    "'abc'",
    "''",
    "NULL",
    "1e300",
    "-1e300",
    "0",
    "3",
    f"{2**62}",
    f"-{2**62}",
]


@given(place=st.sampled_from(_PLACES), unit=st.sampled_from(_UNITS), value=st.sampled_from(_VALUES))
@example(place=("jobs", "id"), unit=101, value="CAST(x'ff41' AS TEXT)")
@example(place=("idempotency", "key"), unit=102, value="CAST(x'ff41' AS TEXT)")
@example(place=("idempotency", "last_seq"), unit=103, value=f"{2**62}")
def test_all_that_is_due_is_forgotten_but_the_row_that_is_damaged(
    place: tuple[str, str], unit: int, value: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        left = asyncio.run(_left(Path(folder) / "journal.db", place, unit, value))
    assert all(count <= 1 for count in left.values()), left


async def _left(path: Path, place: tuple[str, str], unit: int, value: str) -> dict[str, int]:
    """Return how many rows are left of each table after a pass of retention."""
    journal = SqliteJournal(path, durability="off")
    queue = ServiceHarness(settings(), journal)
    for number in _UNITS:
        journal.commit(_unit(number))
    _damage(journal, place, unit, value)
    retention = queue.settings.retention
    queue.clock.advance(retention.max_age_s + retention.idempotency_s + 10_000)
    await queue.forget_old()
    assert await queue.submit("new") is None
    journal._writer.execute("DELETE FROM jobs WHERE id = 'new'")
    left = {table: journal._writer.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _COLUMNS}
    await queue.service.close()
    return left


def _damage(journal: SqliteJournal, place: tuple[str, str], unit: int, value: str) -> None:
    table, column = place
    name = "rowid" if table == "idempotency" else _COLUMNS[table][0]
    try:
        journal._writer.execute(f"UPDATE {table} SET {column} = {value} WHERE {name} = ?", (unit,))
    except sqlite3.IntegrityError:  # such a value can't come to be there, or it is another row's
        return


def _unit(number: int) -> Rows:
    """Return a job that ended soon after the clock's start, with all that can belong to it."""
    ended_at = float(number)
    return Rows(
        jobs=[(number, f"job-{number}", b"header", b"payload")],
        shared=[(number, number, b"metadata")],
        states=[(number, "completed", b"progress", ended_at)],
        results=[(number, b"result")],
        attempts=[(number, 1, b"attempt")],
        keys=[KeyRow(f"key-{number}", f"job-{number}", b"digest", ended_at, number, number, number)],
        batches=[(number, f"batch-{number}", b"spec")],
        batch_states=[(number, b"body", ended_at)],
        parts=[(number, number, 1, 0)],
        ends=[(number, 1, number)],
    )
