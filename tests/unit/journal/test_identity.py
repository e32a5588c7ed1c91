"""No journal takes the place of another one unnoticed: not an empty one, not another one, not an older copy."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from aiqueue.config import Durability
from aiqueue.engine.effects import Rows
from aiqueue.errors import StartError
from aiqueue.journal.identity import ANYTHING, Expected, JournalNotHere, KnownJournal, decode, encode, made_at
from aiqueue.journal.remembered import RememberedJournals
from aiqueue.journal.sqlite import SqliteJournal
from tests.unit.journal.test_contract import row


def opened(path: Path, expected: Expected = ANYTHING) -> KnownJournal:
    """Open a journal, let it accept a job, close it and return what is known of it."""
    journal = SqliteJournal(path, expected)
    journal.commit(Rows(jobs=[row(journal.epoch)]))
    journal.close()
    return KnownJournal(journal.id, journal.epoch, str(path), "h1 (10.0.0.1)", 1_700_000_000.0)


def expected(known: KnownJournal | None, *, may_begin: bool = True, new: bool = False) -> Expected:
    return Expected(known, may_begin=may_begin, new=new, node="h3 (10.0.0.3)", namespace="mine")


def test_a_journal_that_is_known_is_opened_again_and_again(tmp_path: Path) -> None:
    known = opened(tmp_path / "j.db")
    for _ in range(3):
        again = opened(tmp_path / "j.db", expected(known, may_begin=False))
        assert (again.id, again.epoch) == (known.id, known.epoch + 1)
        known = again


def test_nothing_where_a_journal_is_known_is_refused_and_nothing_is_made_there(tmp_path: Path) -> None:
    known = opened(tmp_path / "disk" / "j.db")
    with pytest.raises(JournalNotHere) as refused:
        SqliteJournal(tmp_path / "other" / "j.db", expected(known))
    for part in ("'mine'", "h1 (10.0.0.1)", str(tmp_path / "disk"), "h3 (10.0.0.3)", "there is none", "--new-journal"):
        assert part in str(refused.value)
    assert refused.value.node == "h1 (10.0.0.1)"
    assert not (tmp_path / "other").exists()


def test_a_disk_that_is_not_mounted_is_no_new_journal(tmp_path: Path) -> None:
    disk, away = tmp_path / "disk", tmp_path / "away"
    known = opened(disk / "j.db")
    disk.rename(away)
    disk.mkdir()  # the empty mount point
    with pytest.raises(JournalNotHere, match="there is none"):
        SqliteJournal(disk / "j.db", expected(known))
    assert list(disk.iterdir()) == []
    disk.rmdir()
    away.rename(disk)
    assert opened(disk / "j.db", expected(known)).id == known.id


def test_another_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    known, other = opened(tmp_path / "a.db"), opened(tmp_path / "b.db")
    with pytest.raises(JournalNotHere, match="is another one"):
        SqliteJournal(tmp_path / "b.db", expected(known))
    assert opened(tmp_path / "b.db", expected(other)).epoch == other.epoch + 1


@pytest.mark.parametrize("closed", [True, False], ids=["stopped", "killed"])
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_an_older_copy_with_all_its_files_is_refused(tmp_path: Path, closed: bool, durability: Durability) -> None:
    """Its ``.head`` is as old as the copy, so beside the database nothing tells."""
    path, copy = tmp_path / "disk" / "j.db", tmp_path / "copy"
    journal = SqliteJournal(path)
    journal.commit(Rows(jobs=[row(1)]))
    if closed:
        journal.close()
    shutil.copytree(path.parent, copy)
    journal.close()
    known = opened(path)
    with pytest.raises(StartError, match="an older copy") as refused:
        SqliteJournal(copy / "j.db", expected(known), durability=durability)
    commit = int(str(refused.value).split("ends at commit ")[1].split(",")[0])
    kept = SqliteJournal(copy / "j.db", expected(known), accept_loss=commit)
    assert kept.epoch > known.epoch
    kept.close()


def test_where_another_journal_is_none_is_begun_though_a_new_one_is_meant(tmp_path: Path) -> None:
    known, other = opened(tmp_path / "a.db"), opened(tmp_path / "b.db")
    with pytest.raises(JournalNotHere, match=r"is another one.*--new-journal.*only where there is none") as refused:
        SqliteJournal(tmp_path / "b.db", expected(known, new=True))
    assert (tmp_path / "b.db").exists()
    commit = int(str(refused.value).split("--accept-loss ")[1].split("`")[0])
    kept = SqliteJournal(tmp_path / "b.db", expected(known), accept_loss=commit)
    assert (kept.id, kept.epoch) == (other.id, other.epoch + 1)
    kept.close()


def test_a_new_journal_begins_anew_also_in_its_epochs(tmp_path: Path) -> None:
    known = opened(tmp_path / "a.db")
    begun = opened(tmp_path / "new" / "a.db", expected(known, new=True))
    assert (begun.id != known.id, begun.epoch) == (True, 1)


def test_an_older_copy_is_refused_though_a_new_one_is_meant(tmp_path: Path) -> None:
    opened(tmp_path / "disk" / "j.db")
    shutil.copytree(tmp_path / "disk", tmp_path / "copy")
    known = opened(tmp_path / "disk" / "j.db")
    with pytest.raises(StartError, match="an older copy"):
        SqliteJournal(tmp_path / "copy" / "j.db", expected(known, new=True))


def test_a_queue_that_starts_again_begins_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalNotHere, match="begins no new one"):
        SqliteJournal(tmp_path / "data" / "j.db", expected(None, may_begin=False))
    assert not (tmp_path / "data").exists()


def test_a_queue_that_starts_again_begins_no_journal_in_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "j.db").touch()
    with pytest.raises(JournalNotHere, match="begins no new one"):
        SqliteJournal(tmp_path / "j.db", expected(None, may_begin=False))
    assert (tmp_path / "j.db").read_bytes() == b""


def test_a_journal_says_when_it_was_made(tmp_path: Path) -> None:
    before = time.time()
    known = opened(tmp_path / "j.db")
    assert before - 1 <= made_at(known.id) <= time.time() + 1


def test_what_is_known_survives_its_keeping(tmp_path: Path) -> None:
    known, notes = KnownJournal("ab", 3, "/data/ü.db", "h1", 4.5), RememberedJournals(tmp_path / "notes")
    assert decode(encode(known)) == known
    assert notes.of("mine", Path("/data/j.db")) is None
    notes.note("mine", Path("/data/j.db"), known)
    assert notes.of("mine", Path("/data/j.db")) == known
    assert notes.of("yours", Path("/data/j.db")) is None
    assert notes.of("mine", Path("/data/k.db")) is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"id": 3}', b"\xff", b"null"])
def test_what_can_not_be_read_is_an_error_and_not_nothing(tmp_path: Path, body: bytes) -> None:
    assert decode(None) is None
    with pytest.raises(ValueError, match="can't be read"):
        decode(body)
    notes = RememberedJournals(tmp_path)
    notes.note("mine", Path("j.db"), KnownJournal("ab", 1, "j.db", "h1", 1.0))
    for file in tmp_path.iterdir():
        file.write_bytes(body)
    with pytest.raises(ValueError, match="can't be read"):
        notes.of("mine", Path("j.db"))


def test_a_note_is_found_by_each_name_of_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, notes = KnownJournal("ab", 1, "j.db", "h1", 1.0), RememberedJournals(tmp_path / "notes")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    notes.note("mine", Path("~/j.db"), known)
    assert notes.of("mine", tmp_path / "j.db") == notes.of("mine", Path("j.db")) == known
    monkeypatch.chdir("/")
    assert notes.of("mine", Path("j.db")) is None


def test_a_note_is_on_disk_before_it_takes_the_place_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: done.append("synced"))
    monkeypatch.setattr(Path, "replace", lambda *_: done.append("replaced"))
    RememberedJournals(tmp_path).note("mine", Path("j.db"), KnownJournal("ab", 1, "j.db", "h1", 1.0))
    assert done == ["synced", "replaced"]
