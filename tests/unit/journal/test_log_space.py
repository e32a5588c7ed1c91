"""The log's space, taken in advance."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.journal import log_space
from aiqueue.journal.log_space import fill_log
from aiqueue.journal.sqlite import SqliteJournal


def commit(journal: SqliteJournal, seq: int) -> None:
    journal.commit(Rows(jobs=[(seq, f"job-{seq}", b"header", b"payload" * 100)], counters=b"counters"))


def test_commits_go_into_the_space_that_was_taken(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.fill_log()
    size = (tmp_path / "journal.db-wal").stat().st_size
    assert size >= 32_000_000
    for seq in range(1, 200):
        commit(journal, seq)
    assert (tmp_path / "journal.db-wal").stat().st_size == size
    journal.close()


def test_a_queue_killed_with_a_log_half_full_of_zeros_has_lost_nothing(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.fill_log()
    for seq in range(1, 51):
        commit(journal, seq)
    dead = tmp_path / "dead"
    dead.mkdir()
    for file in tmp_path.glob("journal.db*"):  # what a killed process leaves
        if not file.name.endswith((".lock", "-shm")):
            shutil.copy(file, dead / file.name)
    after = SqliteJournal(dead / "journal.db")
    assert len(after.jobs([f"job-{seq}" for seq in range(1, 51)])) == 50
    after.fill_log()
    commit(after, 51)
    assert after.jobs(["job-51"])
    after.close()
    journal.close()


def test_a_disk_with_little_room_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_space, "_ROOM", 10**9)
    journal = SqliteJournal(tmp_path / "journal.db")
    before = os.stat(tmp_path / "journal.db-wal").st_size
    journal.fill_log()
    assert os.stat(tmp_path / "journal.db-wal").st_size == before
    journal.close()


def test_a_log_that_can_not_be_filled_stops_nobody(tmp_path: Path) -> None:
    fill_log(tmp_path / "nowhere.db", 2**20)
