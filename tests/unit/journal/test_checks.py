"""A journal that is damaged, or lacks what was acknowledged, is refused at the start and left as it is."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aiqueue.config import Durability
from aiqueue.engine.effects import Rows
from aiqueue.errors import StartError
from aiqueue.journal import checks
from aiqueue.journal.head import Head, head_path, read_mark
from aiqueue.journal.sqlite import SqliteJournal


class Site:
    """A folder with a journal, and what a test does to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "journal.db"
        self.wal = folder / "journal.db-wal"

    def grow(self, *seqs: int) -> None:
        """Start, commit one job each, and stop."""
        journal = SqliteJournal(self.path)
        self.commit(journal, *seqs)
        journal.close()

    def commit(self, journal: SqliteJournal, *seqs: int) -> None:
        for seq in seqs:
            journal.commit(Rows(jobs=[(seq, f"job-{seq}", b"h", b"p" * 500)], counters=b"c"))

    def copy(self, name: str) -> Site:
        """Return what a killed process, or a backup of all files, would have left at this moment."""
        other = Site(self.folder / name)
        other.folder.mkdir()
        for file in self.folder.glob("journal.db*"):
            shutil.copy(file, other.folder)
        return other

    def files(self) -> dict[str, bytes]:
        """Everything but SQLite's shared memory, our lock and an empty WAL, which hold nothing that lasts."""
        kept = (file for file in self.folder.glob("journal.db*") if file.suffix not in (".lock", ".db-shm"))
        return {file.name: content for file in kept if (content := file.read_bytes())}

    def refusal(self) -> str:
        """Start; return why it was refused, and check that nothing was touched."""
        before = self.files()
        with pytest.raises(StartError) as refused:
            SqliteJournal(self.path)
        assert self.files() == before
        return str(refused.value)

    def accepted(self, commit: int) -> set[str]:
        """Start with the loss accepted; return the jobs there are, after a start that needs no permission any more."""
        SqliteJournal(self.path, accept_loss=commit).close()
        journal = SqliteJournal(self.path)
        found = set(journal.jobs([f"job-{seq}" for seq in range(100)]))
        journal.close()
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return an empty folder for a journal."""
    return Site(tmp_path)


@pytest.fixture
def killed(site: Site) -> Site:
    """Return what a process leaves that is killed after five commits, in a new journal: commits 2 to 6."""
    journal = SqliteJournal(site.path)
    site.commit(journal, 1, 2, 3, 4, 5)
    left = site.copy("killed")
    journal.close()
    return left


def commit_named(refusal: str) -> int:
    """The number that the message says to accept."""
    found = re.search(r"--accept-loss (\d+)`", refusal)
    assert found, refusal
    return int(found[1])


def test_what_a_killed_process_leaves_is_whole(killed: Site) -> None:
    journal = SqliteJournal(killed.path)
    assert len(journal.jobs([f"job-{seq}" for seq in range(1, 6)])) == 5
    journal.close()


@pytest.mark.parametrize(
    ("owner", "step", "time"),
    [(SqliteJournal, "_open", 1), (Head, "write", 2), (SqliteJournal, "_begin", 1)],  # the mark is written last
)
def test_a_start_that_is_killed_half_way_leaves_a_journal_that_starts(
    site: Site, monkeypatch: pytest.MonkeyPatch, owner: type, step: str, time: int
) -> None:
    class Killed(BaseException):
        """In the place of a signal that no process survives."""

    whole, calls = getattr(owner, step), list[int]()

    def killed(self: object, *args: object) -> object:
        calls.append(1)
        if len(calls) < time:
            return whole(self, *args)
        if owner is SqliteJournal:
            whole(self, *args)
        raise Killed

    for number in (1, 2):  # a new journal, and one that was stopped in order
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, killed)
            with pytest.raises(Killed):
                SqliteJournal(site.path)
        left = site.copy(f"left-{number}")
        left.grow(number)
        site.grow(number)
        calls.clear()


def test_a_lost_wal_is_refused_and_says_how_much_is_missing(killed: Site) -> None:
    killed.wal.unlink()
    refusal = killed.refusal()
    assert "ends at commit 0, but 6 of 6 acknowledged commits are missing" in refusal
    assert killed.accepted(commit_named(refusal)) == set()


def test_a_wal_cut_at_its_end_lacks_the_last_commit(killed: Site) -> None:
    killed.wal.write_bytes(killed.wal.read_bytes()[:-1])
    refusal = killed.refusal()
    assert "ends at commit 5, but 1 of 6 acknowledged commits are missing at its end" in refusal
    assert killed.accepted(commit_named(refusal)) == {"job-1", "job-2", "job-3", "job-4"}


def test_an_older_copy_of_the_database_is_refused(site: Site) -> None:
    site.grow(1, 2)
    backup = site.path.read_bytes()
    site.grow(3, 4)
    site.path.write_bytes(backup)
    refusal = site.refusal()
    assert "ends at commit 3, but 3 of 6 acknowledged commits are missing" in refusal
    assert site.accepted(3) == {"job-1", "job-2"}


def test_a_database_that_is_gone_is_not_made_anew_in_silence(site: Site) -> None:
    site.grow(1)
    site.path.unlink()
    commit = commit_named(site.refusal())
    assert commit == 2  # of the journal that is gone: a 0 would fit each one that is
    assert site.accepted(commit) == set()


def test_a_copy_that_went_on_elsewhere_is_refused(site: Site) -> None:
    site.grow(1)
    fork = site.copy("fork")
    fork.grow(*range(2, 30))
    for _ in range(3):  # epochs, not commits, of the first branch
        site.grow()
    site.path.write_bytes(fork.path.read_bytes())
    assert "an older copy that went on elsewhere" in site.refusal()


def test_the_database_of_another_journal_is_refused(site: Site, tmp_path: Path) -> None:
    site.grow(1)
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    other.grow(1, 2, 3)
    site.path.write_bytes(other.path.read_bytes())
    assert "belongs to another journal" in site.refusal()


@pytest.mark.parametrize("head", [None, b"", b"garbage"])
def test_without_a_head_nobody_can_tell_and_the_operator_decides(site: Site, head: bytes | None) -> None:
    site.grow(1, 2)
    head_path(site.path).unlink() if head is None else head_path(site.path).write_bytes(head)
    refusal = site.refusal()
    assert "journal.db.head is missing" in refusal or "journal.db.head is damaged" in refusal
    assert site.accepted(commit_named(refusal)) == {"job-1", "job-2"}


def test_a_permission_is_for_one_loss_only(site: Site) -> None:
    site.grow(1, 2)
    backup = site.path.read_bytes()
    site.grow(3)
    site.path.write_bytes(backup)
    SqliteJournal(site.path, accept_loss=3).close()  # as a setting that stays in a file
    backup = site.path.read_bytes()
    site.grow(4)
    site.path.write_bytes(backup)
    with pytest.raises(StartError, match="acknowledged commits are missing"):
        SqliteJournal(site.path, accept_loss=3)


def test_a_permission_for_a_journal_that_is_gone_is_for_that_one_only(site: Site) -> None:
    site.grow(1)
    site.path.unlink()
    commit = commit_named(site.refusal())
    SqliteJournal(site.path, accept_loss=commit).close()
    site.grow(2)
    site.path.unlink()
    with pytest.raises(StartError, match="acknowledged commits are missing"):
        SqliteJournal(site.path, accept_loss=commit)


def test_numbers_go_on_beyond_what_was_lost(killed: Site) -> None:
    killed.wal.unlink()
    SqliteJournal(killed.path, accept_loss=6).close()
    mark = read_mark(killed.path)
    assert mark is not None
    assert (mark.epoch, mark.commit) == (2, 7)


def test_an_older_mark_than_the_database_is_what_a_power_cut_leaves(killed: Site) -> None:
    line = head_path(killed.path).read_bytes()
    site_head = head_path(killed.path)
    journal = SqliteJournal(killed.path)
    killed.commit(journal, 6, 7)
    journal.close()
    site_head.write_bytes(line)
    SqliteJournal(killed.path).close()


@pytest.mark.parametrize("durability", ["full", "normal", "off"])
@pytest.mark.parametrize("left", [None, b""], ids=["no file", "an empty file"])
def test_a_database_that_is_gone_as_a_whole_is_refused_whatever_the_durability(
    site: Site, durability: Durability, left: bytes | None
) -> None:
    site.grow(1, 2)
    site.path.unlink()
    if left is not None:
        site.path.write_bytes(left)
    with pytest.raises(StartError, match="acknowledged commits are missing"):
        SqliteJournal(site.path, durability=durability)


@pytest.mark.parametrize("durability", ["normal", "off"])
def test_where_a_power_cut_may_take_the_end_it_is_logged(
    killed: Site, durability: Durability, caplog: pytest.LogCaptureFixture
) -> None:
    killed.wal.unlink()
    with caplog.at_level(logging.WARNING):
        SqliteJournal(killed.path, durability=durability).close()
    assert "6 of 6 acknowledged commits are missing" in caplog.text


def test_a_byte_changed_while_the_queue_was_stopped_is_found_wherever_it_is(site: Site) -> None:
    site.grow(*range(1, 30))
    whole = site.path.read_bytes()
    for at in range(100, len(whole), 997):
        site.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refusal = site.refusal()
        assert "is not what it was when the queue was stopped" in refusal or "is damaged" in refusal, at
    site.path.write_bytes(whole)
    SqliteJournal(site.path).close()


def test_a_database_whose_pages_are_damaged_is_refused_also_after_a_kill(site: Site) -> None:
    site.grow(*range(1, 200))
    head = head_path(site.path)
    with closing(sqlite3.connect(site.path)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    journal = SqliteJournal(site.path)  # opened and killed: the checksum of the stop is gone
    left = site.copy("left")
    journal.close()
    content = bytearray(left.path.read_bytes())
    content[(page - 1) * size : page * size] = b"\xa5" * size
    left.path.write_bytes(content)
    refusal = left.refusal()
    assert "is damaged" in refusal
    assert "docs/operations.md says how" in refusal
    assert "\n" not in refusal
    assert head.exists()


def test_a_large_database_is_not_read_as_a_whole_but_its_number_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_READ_BYTES", 1_000)
    monkeypatch.setattr(checks, "checksum_of", lambda path: 1 // 0)
    site.grow(1, 2)
    backup = site.path.read_bytes()
    site.grow(3)
    mark = read_mark(site.path)
    assert mark is not None
    assert mark.checksum == ""
    site.path.write_bytes(backup)
    assert "2 of 5 acknowledged commits are missing" in site.refusal()


def test_a_second_owner_takes_the_right_to_write_and_the_first_is_told(site: Site) -> None:
    from aiqueue.journal.base import JournalTaken

    first = SqliteJournal(site.path)
    site.commit(first, 1)
    site.path.with_name("journal.db.lock").unlink()
    second = SqliteJournal(site.path)
    site.commit(second, 2)
    for _ in range(2):
        with pytest.raises(JournalTaken, match="another queue has opened the journal"):
            first.commit(Rows(jobs=[(3, "job-3", b"h", b"p")], deletes=[1]))
    with pytest.raises(JournalTaken):
        first.reopen()
    site.commit(second, 4)
    assert set(second.jobs([f"job-{seq}" for seq in range(9)])) == {"job-1", "job-2", "job-4"}
    mark = read_mark(site.path)
    assert mark is not None
    assert (mark.epoch, mark.commit) == (2, 5)  # nothing of the first one's
    first.close()
    second.close()
    SqliteJournal(site.path).close()
