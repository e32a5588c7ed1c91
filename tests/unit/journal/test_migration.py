"""A database that an earlier release has written goes on where it stopped."""

from __future__ import annotations

import math
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from aiqueue.engine.effects import KeyRow, Rows
from aiqueue.errors import StartError
from aiqueue.ids import ids_from, new_job_ids
from aiqueue.journal import schema
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.service.lookup import view_of
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
SECOND_STEP = """
    CREATE TABLE attempts (seq INTEGER, attempt INTEGER, body BLOB NOT NULL, PRIMARY KEY (seq, attempt)) WITHOUT ROWID;
    CREATE TABLE gates (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE idempotency (key TEXT PRIMARY KEY, job_id TEXT NOT NULL, digest BLOB NOT NULL, at REAL NOT NULL);
    CREATE INDEX idempotency_by_time ON idempotency (at);
    CREATE INDEX dead_letters ON states (seq) WHERE state = 'dead_letter';
"""
SCHEMAS = {1: FIRST_SCHEMA, 2: FIRST_SCHEMA + SECOND_STEP}
START = 1_600_000_000.0
HEADER = ["chat_completion", "sim", "model-a", 2, "client-a", 3, 30_000, [], b"", "", START]  # no times, no key yet
FAILURE = ["provider_server_error", "Provider sim: 503", True, 503, None, None]
STATES = {
    2: ("processing", [1, 0, 0, WORKER, START, 0.0, 0.0, None]),
    3: ("scheduled", [1, 1, 0, WORKER, START, 0.0, START + 2.0, FAILURE]),
    4: ("completed", [1, 0, 0, WORKER, START, START + 1.0, 0.0, None]),
    5: ("dead_letter", [4, 4, 0, WORKER, START, START + 9.0, 0.0, FAILURE]),
}


@pytest.fixture(params=SCHEMAS)
def schema_of_old(request: pytest.FixtureRequest) -> int:
    """Return each schema that was released."""
    number: int = request.param
    return number


@pytest.fixture
def old(tmp_path: Path, schema_of_old: int) -> Iterator[SqliteJournal]:
    """Return a journal opened on a database of an earlier schema, with a job in each kind of state."""
    path = tmp_path / "journal.db"
    encode = msgspec.msgpack.encode
    with sqlite3.connect(path) as database:
        database.executescript(f"{SCHEMAS[schema_of_old]} PRAGMA user_version = {schema_of_old};")
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


def test_the_released_steps_are_what_they_were() -> None:
    assert schema.STEPS[0].split() == FIRST_SCHEMA.split()
    assert schema.STEPS[1].split() == SECOND_STEP.split()


def test_an_old_database_is_brought_to_the_newest_schema_with_all_it_holds(old: SqliteJournal) -> None:
    assert old._writer.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    found = old.jobs([f"job-{seq}" for seq in range(1, 6)], with_payload=True)
    assert [found[f"job-{seq}"].state for seq in range(1, 6)] == [
        "",
        *(state for state, _ in STATES.values()),
    ]
    assert {job.payload for job in found.values()} == {b"payload"}
    assert found["job-4"].result == b"{}"
    assert old.dead_letter_seqs(before_seq=9, limit=9) == [5]
    assert [(row.at, row.seq) for row in old.ended(after=(0.0, 0), before=9e9, limit=9)] == [
        (START + 1.0, 4),
        (START + 9.0, 5),
    ]
    assert old.count_jobs() == 5


def test_a_job_that_ended_under_a_clock_a_year_ahead_counts_as_ended_when_the_schema_changes(tmp_path: Path) -> None:
    path, ahead = tmp_path / "journal.db", time.time() + 365 * 86_400.0
    progress = msgspec.msgpack.encode([1, 0, 0, WORKER, ahead, ahead, 0.0, None])
    with closing(sqlite3.connect(path)) as database:
        database.executescript(f"{SCHEMAS[2]} PRAGMA user_version = 2; INSERT INTO jobs VALUES (1, 'a', x'', x'');")
        database.execute("INSERT INTO states VALUES (1, 'completed', ?)", (progress,))
        database.commit()
    with closing(SqliteJournal(path)) as journal:
        (row,) = journal.ended(after=(0.0, 0), before=9e9, limit=9)
        assert row.at <= time.time()


@pytest.mark.parametrize("row", ["c1", "a1ff"], ids=["no MessagePack", "no UTF-8"])
def test_a_row_that_can_not_be_decoded_does_not_keep_an_old_journal_from_its_new_schema(
    tmp_path: Path, row: str
) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            f"{SCHEMAS[2]} PRAGMA user_version = 2; INSERT INTO jobs VALUES (1, 'a', x'{row}', x'');"
        )
        database.execute(f"INSERT INTO states VALUES (1, 'completed', x'{row}')")
        database.execute("INSERT INTO idempotency VALUES ('key', 'a', x'', 1.0)")
        database.commit()
    with closing(SqliteJournal(path)) as journal:
        assert journal.keys(["key"])["key"].job_id == "a"
        assert [row.id for row in journal.ended(after=(0.0, 0), before=9e9, limit=9)] == ["a"]


@pytest.mark.parametrize("end", [math.nan, math.inf, -math.inf, -1.0])
def test_a_job_whose_end_is_no_time_does_not_keep_an_old_journal_from_its_new_schema(
    tmp_path: Path, end: float
) -> None:
    path, began = tmp_path / "journal.db", time.time()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(f"{SCHEMAS[2]} PRAGMA user_version = 2; INSERT INTO jobs VALUES (1, 'a', x'', x'');")
        progress = msgspec.msgpack.encode([1, 0, 0, WORKER, 1.0, end, 0.0, None])
        database.execute("INSERT INTO states VALUES (1, 'completed', ?)", (progress,))
        database.commit()
    with closing(SqliteJournal(path)) as journal:
        (row,) = journal.ended(after=(0.0, 0), before=9e9, limit=9)
        assert began <= row.at <= time.time()


def test_what_the_earlier_release_can_read_is_kept_as_a_copy(old: SqliteJournal, schema_of_old: int) -> None:
    copy = old.path.with_name(f"journal.db.schema-{schema_of_old}")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (schema_of_old,)
        assert database.execute("SELECT count(*), max(payload) FROM jobs").fetchone() == (5, b"payload")
        assert database.execute("SELECT state FROM states ORDER BY seq").fetchall() == [
            (state,) for state, _ in STATES.values()
        ]
    before = copy.stat().st_mtime_ns
    old.close()
    SqliteJournal(old.path).close()  # nothing to bring up to date: no copy
    assert copy.stat().st_mtime_ns == before


def test_where_no_copy_can_be_made_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(f"{SCHEMAS[2]} PRAGMA user_version = 2; INSERT INTO jobs VALUES (1, 'a', x'', x'');")
    (tmp_path / "journal.db.schema-2.part").mkdir()
    with pytest.raises(StartError, match="no copy of it could be made"):
        SqliteJournal(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migrated_database_takes_what_is_new(old: SqliteJournal) -> None:
    old.commit(Rows(attempts=[(2, 1, b"a")], gates=[("g", b"x")], keys=[KeyRow("k", "job-1", b"d", 1.0)], deletes=[4]))
    old.commit(Rows(schedules=[("s", b"spec", b"state")]))
    with old.recover() as found:
        assert list(found.schedules) == [("s", b"spec", b"state")]
    assert old.attempts([2]) == {2: [b"a"]}
    assert set(old.keys(["k"])) == {"k"}
    assert old.jobs(["job-4"]) == {}


def test_a_migrated_database_keeps_long_values_and_takes_shared_metadata(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    metadata = msgspec.json.encode({"note": "x" * 100_000})
    header = [*HEADER[:2], "model\n" + "y" * 300, *HEADER[3:7], ["tag\x1b" * 30], metadata, "", START]
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(f"{''.join(schema.STEPS[:6])} PRAGMA user_version = 6;")
        database.execute("INSERT INTO jobs VALUES (1, 'job-1', ?, x'7b7d')", (msgspec.msgpack.encode(header),))
    with closing(SqliteJournal(path)) as journal:
        journal.commit(Rows(jobs=[(2, "job-2", msgspec.msgpack.encode(HEADER), b"")], shared=[(2, 2, b"new")]))
        found = journal.jobs(["job-1", "job-2"])
        view = view_of(found["job-1"], (1, 1, 1, 1))
        assert (view.header.metadata, view.header.tags) == (metadata, ("tag\x1b" * 30,))
        assert view_of(found["job-2"], (1, 1, 1, 1)).header.metadata == b"new"


def test_a_database_with_the_wider_index_by_end_gets_the_narrow_one_and_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.create_function("end_in", 1, lambda progress: 0.0, deterministic=True)
        database.executescript(f"{''.join(schema.STEPS[:8])} PRAGMA user_version = 8;")
        for seq, ended_at in ((1, 3.0), (2, 2.0), (3, 0.0), (4, 2.0)):
            database.execute("INSERT INTO jobs VALUES (?, ?, x'', x'')", (seq, f"job-{seq}"))
            database.execute("INSERT INTO states VALUES (?, 'completed', x'', ?)", (seq, ended_at))
    with closing(SqliteJournal(path)) as journal:
        columns = journal._writer.execute("PRAGMA index_info(states_by_end)").fetchall()
        assert [name for _, _, name in columns] == ["ended_at"]
        first = journal.ended(after=(0.0, 0), before=9.0, limit=2)
        rest = journal.ended(after=(first[-1].at, first[-1].seq), before=9.0, limit=2)
        assert [row.seq for row in first + rest] == [2, 4, 1]


def test_keys_that_an_earlier_release_kept_stand_for_all_jobs_of_their_list_or_batch(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    listed, alone, batched = (ids_from(first, 3) for first in new_job_ids(3))
    in_batch = msgspec.msgpack.encode([*HEADER[:9], "nightly", START])
    rows = [(name, msgspec.msgpack.encode(HEADER)) for name in [*listed[1:], alone[0], "chosen", "chosen-2"]]
    rows += [(name, in_batch) for name in batched]
    keys = {"list": listed[0], "one": alone[0], "chosen": "chosen", "batch": batched[0], "gone": new_job_ids(1)[0]}
    with closing(sqlite3.connect(path)) as database, database:
        database.create_function("end_in", 1, lambda progress: 0.0, deterministic=True)
        database.executescript(f"{''.join(schema.STEPS[:9])} PRAGMA user_version = 9;")
        for seq, row in enumerate(rows, 1):  # the list's first job is deleted
            database.execute("INSERT INTO jobs VALUES (?, ?, ?, x'')", (seq, *row))
        database.execute("INSERT INTO batches VALUES (4, 'nightly', x'')")
        database.executemany("INSERT INTO idempotency VALUES (?, ?, x'', 1.0)", keys.items())
    with closing(SqliteJournal(path)) as journal:
        found = journal.keys(list(keys))
        spans = journal._writer.execute("SELECT key, first_seq, last_seq FROM idempotency").fetchall()
    assert {key: (row.jobs, row.batch) for key, row in found.items()} == {
        "list": (2, None),
        "one": (1, None),
        "chosen": (1, None),
        "batch": (3, 4),
        "gone": (0, None),
    }
    assert sorted(spans, key=lambda span: span[1] or 0) == [
        ("gone", None, None),
        ("list", 1, 2),
        ("one", 3, 3),
        ("chosen", 4, 4),
        ("batch", 6, 8),
    ]


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
