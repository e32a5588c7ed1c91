"""Waiting for a journal that another queue has."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from aiqueue.errors import StartError
from aiqueue.journal import lock as locks
from aiqueue.journal.lock import lock, wait_until_free


def test_a_journal_that_nobody_has_is_free_and_nothing_is_made_of_it(tmp_path: Path) -> None:
    wait_until_free(tmp_path / "none" / "journal.db")
    assert list(tmp_path.iterdir()) == []
    lock(tmp_path / "journal.db").close()
    wait_until_free(tmp_path / "journal.db", limit_s=0.0)
    lock(tmp_path / "journal.db").close()  # it was not taken


def test_a_journal_in_use_is_refused_after_the_limit(tmp_path: Path) -> None:
    with lock(tmp_path / "journal.db"), pytest.raises(StartError, match="in use by another queue"):
        wait_until_free(tmp_path / "journal.db", limit_s=0.0)


def test_a_queue_that_is_just_ending_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, looked = lock(tmp_path / "journal.db"), threading.Event()
    monkeypatch.setattr(locks.time, "sleep", lambda _: (looked.set(), held.close()))
    wait_until_free(tmp_path / "journal.db", limit_s=60.0)
    assert looked.is_set()


def test_a_journal_in_use_is_refused_by_each_name_of_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with lock(tmp_path / "journal.db"), pytest.raises(StartError, match="in use by another queue"):
        wait_until_free(Path("~/journal.db"), limit_s=0.0)
    wait_until_free(Path("~no-such-user/journal.db"))


def test_a_link_and_the_file_that_it_names_are_one_journal(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, file = tmp_path / "journal.db", tmp_path / "disk" / "journal.db"
    link.symlink_to(file)
    for one, other in ((link, file), (file, link)):
        with lock(one):
            with pytest.raises(StartError, match="in use by another queue"):
                lock(other)
            with pytest.raises(StartError, match="in use by another queue"):
                wait_until_free(other, limit_s=0.0)
