"""The embedded journal's own promises."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiqueue.engine.core import Core
from aiqueue.engine.counters import Counters
from aiqueue.engine.effects import KeyRow, Rows
from aiqueue.engine.publishing import Turn
from aiqueue.engine.states import JobState
from aiqueue.errors import StartError
from aiqueue.journal import schema
from aiqueue.journal.base import JournalRefused, OldKey
from aiqueue.journal.sqlite import SqliteJournal
from tests.tools.queue_harness import POLICY, header


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal of this test lies."""
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    """Return an open journal."""
    made = SqliteJournal(path)
    yield made
    made.close()


def pragma(journal: SqliteJournal, name: str) -> object:
    return journal._writer.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1), ("off", 0)])
def test_the_durability_setting_is_what_sqlite_is_told(path: Path, durability: str, level: int) -> None:
    journal = SqliteJournal(path, durability=durability)  # type: ignore[arg-type]
    assert pragma(journal, "synchronous") == level
    assert pragma(journal, "journal_mode") == "wal"
    journal.reopen()
    assert pragma(journal, "synchronous") == level
    journal.close()


def test_full_durability_is_the_default(journal: SqliteJournal) -> None:
    assert pragma(journal, "synchronous") == 2


def test_a_second_journal_on_the_same_path_is_refused(journal: SqliteJournal, path: Path) -> None:
    with pytest.raises(StartError, match="in use by another queue"):
        SqliteJournal(path)


def test_a_path_is_free_again_after_close(journal: SqliteJournal, path: Path) -> None:
    journal.close()
    SqliteJournal(path).close()


def test_missing_folders_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "journal.db"
    journal = SqliteJournal(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    journal.close()


def test_only_the_owner_can_read_what_is_written(journal: SqliteJournal, path: Path) -> None:
    journal.commit(Rows(jobs=[(1, "a", b"h", b"secret prompt")]))
    for suffix in ("", "-wal", "-shm", ".lock"):
        file = path.with_name(path.name + suffix)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_a_path_that_can_not_be_looked_at_is_a_start_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"can't create the journal .*: File name too long; set journal\.path"):
        SqliteJournal(tmp_path / ("j" * 300))


def test_a_folder_that_can_not_be_made_is_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"set journal\.path"):
        SqliteJournal(tmp_path / "file" / "journal.db")


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StartError, match=r"as a journal: .*give another journal\.path"):
        SqliteJournal(path)
    assert path.read_bytes() == content
    path.unlink()
    SqliteJournal(path).close()  # its lock was given back


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE jobs (name TEXT)")
    other.close()
    with pytest.raises(StartError, match="already exists"):
        SqliteJournal(path)


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    SqliteJournal(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    newer.close()
    with pytest.raises(StartError, match=f"has schema {schema.VERSION + 1}, but this release knows only up to"):
        SqliteJournal(path)
    with sqlite3.connect(path) as untouched:
        assert untouched.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 1,)
    untouched.close()


def test_an_older_schema_is_brought_up_to_date_and_keeps_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = SqliteJournal(path)
    journal.commit(Rows(jobs=[(1, "a", b"h", b"p")]))
    journal.close()
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, "CREATE TABLE later (x); ALTER TABLE jobs ADD COLUMN y;"))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    journal = SqliteJournal(path)
    assert pragma(journal, "user_version") == schema.VERSION
    assert journal.payloads([1]) == {1: b"p"}
    assert journal._writer.execute("SELECT count(*) FROM later").fetchone() == (0,)
    journal.close()


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = schema.VERSION
    SqliteJournal(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (*schema.STEPS, "CREATE TABLE half (x); CREATE TABLE jobs (x);"))
        patch.setattr(schema, "VERSION", version + 1)
        with pytest.raises(StartError, match="already exists"):
            SqliteJournal(path)
    journal = SqliteJournal(path)
    assert pragma(journal, "user_version") == version
    assert journal._writer.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    journal.close()


def test_a_commit_that_fails_in_the_middle_is_undone_whole(journal: SqliteJournal) -> None:
    journal.commit(Rows(jobs=[(1, "a", b"h", b"p")], counters=b"before"))
    broken = Rows(jobs=[(2, "b", b"h", b"p")], states=[(1, "processing", None, 0.0)], counters=b"after")  # type: ignore[list-item]
    with pytest.raises(JournalRefused, match="IntegrityError: NOT NULL"):
        journal.commit(broken)
    assert set(journal.jobs(["a", "b"])) == {"a"}
    with journal.recover() as found:
        assert found.counters == b"before"
        assert [row[3] for row in found.rows] == ["queued"]
    journal.commit(Rows(jobs=[(2, "b", b"h", b"p")]))
    assert set(journal.jobs(["a", "b"])) == {"a", "b"}


def test_a_full_disk_is_an_error_and_the_journal_goes_on_when_there_is_room(journal: SqliteJournal) -> None:
    pages = pragma(journal, "page_count")
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        journal.commit(Rows(jobs=[(1, "a", b"h", b"p" * 100_000)]))
    assert journal.jobs(["a"]) == {}
    journal.reopen()
    journal.commit(Rows(jobs=[(1, "a", b"h", b"p" * 100_000)]))
    assert len(journal.payloads([1])[1]) == 100_000


def test_a_reader_in_another_thread_sees_the_last_commit(journal: SqliteJournal) -> None:
    journal.commit(Rows(jobs=[(1, "a", b"h", b"p")]))
    found: list[dict[int, bytes]] = []
    reader = threading.Thread(target=lambda: found.append(journal.payloads([1])))
    reader.start()
    reader.join()
    assert found == [{1: b"p"}]


class WatchedLock:
    """Counts the steps of the database in each hold of a lock."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._steps, self.holds = 0, list[int]()
        self._lock = journal._reading
        journal._reader.set_progress_handler(self._step, 1_000)
        journal._reading = self  # type: ignore[assignment]

    def __enter__(self) -> None:
        self._lock.acquire()
        self._steps = 0

    def __exit__(self, *_: object) -> None:
        self.holds.append(self._steps)
        self._lock.release()

    def _step(self) -> int:
        self._steps += 1
        return 0


def test_a_read_of_many_rows_lets_others_read_in_between(journal: SqliteJournal) -> None:
    journal.commit(Rows(jobs=[(seq, str(seq), b"h", b"p") for seq in range(1, 3_001)]))
    watched = WatchedLock(journal)
    assert len(journal.states([str(seq) for seq in range(1, 3_001)])) == 3_000
    assert len(watched.holds) >= 3


def test_what_was_not_checkpointed_is_there_without_a_close(journal: SqliteJournal, path: Path, tmp_path: Path) -> None:
    journal.commit(Rows(jobs=[(1, "a", b"h", b"p")], counters=b"c"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal", ".head"):  # what a dead process leaves
        (copy / (path.name + suffix)).write_bytes(path.with_name(path.name + suffix).read_bytes())
    other = SqliteJournal(copy / path.name)
    assert other.payloads([1]) == {1: b"p"}
    other.close()


def test_what_is_folded_is_in_the_database_itself(journal: SqliteJournal, path: Path, tmp_path: Path) -> None:
    for seq in range(1, 4):
        journal.commit(Rows(jobs=[(seq, f"job-{seq}", b"h", b"p")], counters=b"c"))
    alone = tmp_path / "alone.db"
    for folded, expected in ((False, 0), (True, 3)):
        if folded:
            journal.fold_log()
        alone.write_bytes(path.read_bytes())
        with contextlib.closing(sqlite3.connect(alone)) as copy:
            tables = copy.execute("SELECT count(*) FROM sqlite_master WHERE name = 'jobs'").fetchone()[0]
            found = copy.execute("SELECT count(*) FROM jobs").fetchone()[0] if tables else 0
        assert found == expected
    assert sorted(journal.jobs(["job-1", "job-2", "job-3"])) == ["job-1", "job-2", "job-3"]


def test_rows_that_no_database_takes_are_refused_as_such(journal: SqliteJournal) -> None:
    with pytest.raises(JournalRefused):
        journal.commit(Rows(jobs=[(1, None, b"header", b"p")]))  # type: ignore[list-item]


def test_pages_full_of_jobs_that_run_are_not_split_when_these_end(journal: SqliteJournal) -> None:
    core = Core(POLICY, Counters())
    jobs = [core.record(seq, f"job-{seq}", header()) for seq in range(1, 2_001)]

    def commit(state: JobState) -> int:
        turn = Turn(1_700_000_000.5)
        for job in jobs:
            job.state, job.attempt, job.started_at, job.worker_id = state, 1, turn.now, "worker-1"
            core.write(turn, job)
        journal.commit(turn.rows)
        return int(pragma(journal, "page_count"))  # type: ignore[call-overload]

    full = commit(JobState.PROCESSING)
    index = 2_000 * 24 // 8_192
    assert commit(JobState.COMPLETED) - full <= index + 2


def test_old_keys_of_large_lists_are_read_a_few_at_a_time(journal: SqliteJournal) -> None:
    keys = [KeyRow(f"key-{no}", f"job-{no}", b"", float(no), no * 4_000, no * 4_000 + 3_999) for no in range(1, 9)]
    journal.commit(Rows(keys=keys))
    assert [key.key for key in journal.old_keys(before=99.0, limit=500)] == ["key-1", "key-2", "key-3"]
    journal.commit(Rows(free_keys=[(f"key-{no}", f"job-{no}") for no in (1, 2, 3)]))
    assert [key.key for key in journal.old_keys(before=99.0, limit=500)] == ["key-4", "key-5", "key-6"]


@pytest.mark.parametrize("state", ["completed", "queued"])
def test_a_key_of_a_list_of_any_length_holds_up_no_other_look_up(journal: SqliteJournal, state: str) -> None:
    rows = "WITH RECURSIVE seqs (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM seqs WHERE seq < 60000)"
    journal._writer.execute(f"{rows} INSERT INTO jobs SELECT seq, 'job-' || seq, x'', x'' FROM seqs")
    journal._writer.execute(f"{rows} INSERT INTO states SELECT seq, 'completed', x'', 5.0 FROM seqs WHERE seq < 60000")
    if state == "completed":
        journal._writer.execute("INSERT INTO states VALUES (60000, 'completed', x'', 7.0)")
    journal.commit(
        Rows(keys=[KeyRow("small", "job-1", b"", 1.0, 1, 5_000), KeyRow("large", "job-1", b"", 2.0, 1, 60_000)])
    )
    watched = WatchedLock(journal)
    assert journal.old_keys(before=1.5, limit=500) == [OldKey("small", "job-1", False, 5.0)]
    small = max(watched.holds)
    found = journal.old_keys(before=9.0, limit=500)
    assert found[1] == OldKey("large", "job-1", state == "queued", 7.0 if state == "completed" else 5.0)
    assert 0 < max(watched.holds) <= 3 * small


def test_a_key_whose_numbers_are_damaged_is_looked_up_in_few_steps(journal: SqliteJournal) -> None:
    journal.commit(Rows(jobs=[(1, "job-1", b"", b"")], states=[(1, "completed", b"", 5.0)]))
    journal.commit(Rows(keys=[KeyRow("low", "job-1", b"", 1.0, -(2**60), 1)]))
    journal.commit(Rows(keys=[KeyRow("high", "job-1", b"", 2.0, 1, 2**60)]))
    watched = WatchedLock(journal)
    (found,) = journal.old_keys(before=1.5, limit=9)
    assert (found, len(watched.holds)) == (OldKey("low", "job-1", False, 5.0), 3)
    assert journal.old_keys(before=9.0, limit=9) == [found]  # the other one comes when this one is done
    journal.commit(Rows(free_keys=[("low", "job-1")]))
    assert journal.old_keys(before=9.0, limit=9) == [OldKey("high", "job-1", False, 5.0)]


def test_the_key_of_a_list_of_any_length_is_looked_at_in_few_steps_when_a_dead_letter_is_deleted(
    journal: SqliteJournal,
) -> None:
    rows = "WITH RECURSIVE seqs (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM seqs WHERE seq < 60000)"
    journal._writer.execute(f"{rows} INSERT INTO jobs SELECT seq, 'job-' || seq, x'', x'' FROM seqs")
    keys = [KeyRow("small", "job-1", b"", 1.0, 1, 20), KeyRow("large", "job-21", b"", 2.0, 21, 60_000)]
    journal.commit(Rows(keys=keys))
    watched = WatchedLock(journal)
    assert journal.keys_of_only([1, 2]) == []
    few = max(watched.holds)
    assert journal.keys_of_only([100, 59_000]) == []
    assert max(watched.holds) <= few + 1
    journal.commit(Rows(deletes=list(range(21, 60_000))))
    assert journal.keys_of_only([60_000]) == [("large", "job-21")]
