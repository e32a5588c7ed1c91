"""Room kept for the ends of running jobs."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.journal import reserve as reserve_module
from aiqueue.journal import sqlite as sqlite_module
from aiqueue.journal.reserve import Reserve
from aiqueue.journal.sqlite import SqliteJournal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal would lie."""
    return tmp_path / "journal.db"


@pytest.fixture
def file(path: Path) -> Path:
    """Return where the room is kept."""
    return path.with_name("journal.db.reserve")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be tried again at once."""
    monkeypatch.setattr(reserve_module, "_AGAIN_S", 0.0)


def test_the_room_is_really_taken(path: Path, file: Path) -> None:
    assert Reserve(path).is_held()
    assert file.stat().st_blocks * 512 >= 8 * 2**20


def test_room_that_was_given_away_is_taken_back(path: Path, file: Path, at_once: None) -> None:
    reserve = Reserve(path)
    reserve.release()
    assert not file.exists()
    assert reserve.is_held()
    assert file.exists()


def test_it_is_not_taken_back_in_the_same_moment(path: Path) -> None:
    reserve = Reserve(path)
    reserve.release()
    assert not reserve.is_held()


def test_where_the_disk_is_nearly_full_none_is_taken(
    path: Path, file: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve_module, "_free_bytes", lambda folder: 12 * 2**20)
    reserve = Reserve(path)
    assert not reserve.is_held()
    assert not file.exists()
    monkeypatch.setattr(reserve_module, "_free_bytes", lambda folder: 17 * 2**20)
    assert reserve.is_held()


def test_a_journal_keeps_room_while_it_is_open_and_takes_over_what_a_killed_one_left(path: Path, file: Path) -> None:
    Reserve(path)
    journal = SqliteJournal(path)
    assert journal.has_room()
    assert file.exists()
    journal.close()
    assert not file.exists()


@pytest.mark.parametrize(
    ("number", "room"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EOPNOTSUPP, True), (errno.EINVAL, True)]
)
def test_a_file_system_without_reservations_is_not_a_full_one(
    path: Path, file: Path, at_once: None, monkeypatch: pytest.MonkeyPatch, number: int, room: bool
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert Reserve(path).is_held() == room
    assert not file.exists()


def test_without_the_system_call_the_room_is_written(path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    assert Reserve(path).is_held()
    assert file.stat().st_size == 8 * 2**20


def test_the_note_of_a_fault_is_written_into_that_room_on_a_full_disk(
    path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def full_with_the_reserve(handle: int) -> None:
        if file.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    journal = SqliteJournal(path)
    monkeypatch.setattr(os, "fsync", full_with_the_reserve)
    journal.write_note(b"why")
    monkeypatch.undo()
    assert (journal.read_note(), file.exists()) == (b"why", False)
    journal.close()


@pytest.mark.parametrize(("code", "fits"), [(errno.EDQUOT, False), (errno.ENOSPC, False), (errno.EIO, True)])
def test_what_a_quota_leaves_is_found_by_writing(
    path: Path, code: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(path)
    assert reserve.fits_more()

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert reserve.fits_more() is fits
    assert [each.name for each in path.parent.iterdir()] == ["journal.db.reserve"]


def test_a_write_that_a_quota_refuses_gives_the_room_to_what_runs(
    path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite calls it an I/O error."""
    journal = SqliteJournal(path)

    def refuse(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    monkeypatch.setattr(sqlite_module, "write_rows", refuse)
    for fits, kept in ((True, True), (False, False)):
        monkeypatch.setattr(Reserve, "fits_more", lambda _, fits=fits: fits)
        with pytest.raises(sqlite3.OperationalError):
            journal.commit(Rows(counters=b"counters"))
        assert file.exists() is kept
    journal.close()
