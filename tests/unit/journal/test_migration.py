"""A database that an earlier release has written goes on where it stopped."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from aiqueue.engine.effects import Rows
from aiqueue.journal import schema
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.testing.jobs import completed, failed
from tests.tools.queue_harness import WORKER, QueueHarness

# Written out as the first release had it, since a released step is never edited.
FIRST_SCHEMA = """
    CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, header BLOB NOT NULL, payload BLOB NOT NULL);
    CREATE UNIQUE INDEX jobs_by_id ON jobs (id);
    CREATE TABLE states (seq INTEGER PRIMARY KEY, state TEXT NOT NULL, progress BLOB NOT NULL);
    CREATE TABLE results (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE counters (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL);
"""
START = 1_600_000_000.0
HEADER = ["chat_completion", "sim", "model-a", 2, "client-a", 3, 30_000, [], b"", "", START]  # no times, no key yet
FAILURE = ["provider_server_error", "Provider sim: 503", True, 503, None, None]
STATES = {
    2: ("processing", [1, 0, 0, WORKER, START, 0.0, 0.0, None]),
    3: ("scheduled", [1, 1, 0, WORKER, START, 0.0, START + 2.0, FAILURE]),
    4: ("completed", [1, 0, 0, WORKER, START, START + 1.0, 0.0, None]),
    5: ("dead_letter", [4, 4, 0, WORKER, START, START + 9.0, 0.0, FAILURE]),
}


@pytest.fixture
def old(tmp_path: Path) -> Iterator[SqliteJournal]:
    """Return a journal opened on a database of schema 1, with a job in each kind of state."""
    path = tmp_path / "journal.db"
    encode = msgspec.msgpack.encode
    with sqlite3.connect(path) as database:
        database.executescript(f"{FIRST_SCHEMA} PRAGMA user_version = 1;")
        for seq in range(1, 6):
            database.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", (seq, f"job-{seq}", encode(HEADER), b"payload"))
        for seq, (state, progress) in STATES.items():
            database.execute("INSERT INTO states VALUES (?, ?, ?)", (seq, state, encode(progress)))
        database.execute("INSERT INTO results VALUES (4, x'7b7d')")
        counters = {"next_seq": 6, "next_event": 12, "accepted": 5, "ended": {"completed": 1, "dead_letter": 1}}
        database.execute("INSERT INTO counters VALUES (1, ?)", (encode(counters),))
    database.close()
    journal = SqliteJournal(path)
    yield journal
    journal.close()


def test_the_first_step_is_what_it_was() -> None:
    assert schema.STEPS[0].split() == FIRST_SCHEMA.split()


def test_an_old_database_is_brought_to_the_newest_schema_with_all_it_holds(old: SqliteJournal) -> None:
    assert old._writer.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    found = old.jobs([f"job-{seq}" for seq in range(1, 6)], with_payload=True)
    assert [found[f"job-{seq}"].state for seq in range(1, 6)] == [
        "",
        *(state for state, _ in STATES.values()),
    ]
    assert {job.payload for job in found.values()} == {b"payload"}
    assert found["job-4"].result == b"{}"
    assert [job.id for job in old.dead_letters(before_seq=9, limit=9)] == ["job-5"]
    assert [row.seq for row in old.ended(after_seq=0, limit=9)] == [4, 5]


def test_a_migrated_database_takes_what_is_new(old: SqliteJournal) -> None:
    old.commit(Rows(attempts=[(2, 1, b"a")], gates=[("g", b"x")], keys=[("k", "job-1", b"d", 1.0)], deletes=[4]))
    old.commit(Rows(schedules=[("s", b"spec", b"state")]))
    with old.recover() as found:
        assert list(found.schedules) == [("s", b"spec", b"state")]
    assert old.attempts([2]) == {2: [b"a"]}
    assert set(old.keys(["k"])) == {"k"}
    assert old.jobs(["job-4"]) == {}


def test_a_queue_goes_on_with_the_jobs_of_an_earlier_release(old: SqliteJournal) -> None:
    queue = QueueHarness(journal=old)
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    assert queue.engine.core.counters.accepted == 5
    queue.exchange(completed("job-2"), slots=0)
    queue.tick(3.0)
    assert queue.claim(5) == ["job-1", "job-3"]
    queue.exchange(failed("job-1"), completed("job-3", 2), slots=0)
    assert [queue.state_of(f"job-{seq}") for seq in (1, 2, 3)] == ["scheduled", "completed", "completed"]
    assert [record.outcome for record in queue.attempts("job-1")] == ["failed"]
    assert queue.submit("new", delay_ms=1_000, expires_in_ms=9_000) == [None]
    assert queue.events[-1].number > 12
