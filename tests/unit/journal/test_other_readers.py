"""Other programs that read the database while the queue runs: backups, and people who look."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from aiqueue.engine.effects import Rows
from aiqueue.journal.connection import LOG_BYTES
from aiqueue.journal.sqlite import SqliteJournal


def commit(journal: SqliteJournal, seq: int, payload: bytes) -> None:
    journal.commit(Rows(jobs=[(seq, f"job-{seq}", b"header", payload)], counters=b"counters"))


def test_the_log_is_cut_after_a_reader_let_it_grow(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", durability="off")
    log = tmp_path / "journal.db-wal"
    large = bytes(LOG_BYTES // 4)
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM jobs").fetchall()
    for seq in range(1, 17):
        commit(journal, seq, large)
    assert log.stat().st_size > 3 * LOG_BYTES
    other.close()
    for seq in range(17, 20):
        commit(journal, seq, b"small")
    assert log.stat().st_size <= 2 * LOG_BYTES
    journal.close()


def test_a_copy_made_while_the_queue_runs_is_a_journal(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    for seq in range(1, 4):
        commit(journal, seq, b"payload")
    (tmp_path / "copy").mkdir()
    with sqlite3.connect(tmp_path / "journal.db") as other:
        other.execute("VACUUM INTO ?", (str(tmp_path / "copy" / "journal.db"),))
    shutil.copy(tmp_path / "journal.db.head", tmp_path / "copy")
    journal.close()
    restored = SqliteJournal(tmp_path / "copy" / "journal.db")
    assert len(restored.jobs(["job-1", "job-2", "job-3"])) == 3
    commit(restored, 4, b"payload")
    restored.close()


def test_an_error_that_somebody_keeps_keeps_no_old_view_of_the_database(tmp_path: Path) -> None:
    """The frames of its traceback hold what they had in hand, and a cursor that is at a row is such a view."""
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    for seq in range(1, 4):
        commit(journal, seq, b"payload")
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE jobs SET id = CAST(x'ff41' AS TEXT) WHERE seq = 2")
        other.execute("INSERT INTO states SELECT seq, CAST(x'ff' AS TEXT), x'', 1.0 FROM jobs")
    kept: list[BaseException] = []

    def load() -> None:
        with journal.recover() as found:
            list(found.rows)

    for read in (
        load,
        lambda: journal.ended(after=(0.0, 0), before=9.0, limit=9),
        lambda: journal.states(["job-1", "job-3"]),
        lambda: journal.jobs(["job-1", "job-3"]),
        lambda: journal.results([1, 2, 3]),
    ):
        try:
            read()
        except Exception as error:
            kept.append(error)
    assert kept
    commit(journal, 4, b"payload")
    assert list(journal.payloads([4])) == [4]
    journal.close()
