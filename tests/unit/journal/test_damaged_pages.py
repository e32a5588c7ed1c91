"""Pages that are damaged under a queue that runs: what can't be deleted stays, and all else of a commit is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from aiqueue.engine.effects import KeyRow, Rows
from aiqueue.journal import sparing
from aiqueue.journal.failures import is_damage
from aiqueue.journal.sqlite import SqliteJournal
from tests.tools.damaged_pages import PAGE, alter, break_chain, fold, overwrite, pages_of

LONG = b"Z" * 100_000
_JUNK = (b"\xff" * 16, b"\x00" * PAGE, b"\x0d" * PAGE)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    """Return a journal whose file can be broken beneath it."""
    made = SqliteJournal(tmp_path / "journal.db", durability="off")
    yield made
    made.close()


def ended(*seqs: int, state: str = "completed", payload: bytes = b"payload", result: bytes = b"result") -> Rows:
    """Return jobs that have ended, each at the time of its seq."""
    return Rows(
        jobs=[(seq, f"job-{seq}", b"header", payload) for seq in seqs],
        states=[(seq, state, b"progress", float(seq)) for seq in seqs],
        results=[(seq, result) for seq in seqs],
        attempts=[(seq, 1, b"attempt") for seq in seqs],
    )


def batch(number: int, spec: bytes = b"spec", body: bytes = b"body") -> Rows:
    """Return a batch that ended at 1."""
    return Rows(
        batches=[(number, f"batch-{number}", spec)],
        batch_states=[(number, body, 1.0)],
        parts=[(number, 10 * number, 2, 0)],
        ends=[(number, 1, 10 * number)],
    )


def old_seqs(journal: SqliteJournal) -> list[int]:
    return [row.seq for row in journal.ended(after=(0.0, 0), before=1e9, limit=1_000)]


@pytest.mark.parametrize("long", ["payload", "result"])
def test_a_job_that_can_not_be_deleted_stays_and_all_else_of_its_commit_is_written(
    journal: SqliteJournal, long: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal.commit(ended(1, 2))
    journal.commit(ended(3, **{long: LONG}))  # type: ignore[arg-type]
    journal.commit(ended(4))
    break_chain(journal, b"Z")
    again = Rows(deletes=[1, 2, 3], jobs=[(5, "job-5", b"h", b"p")], counters=b"counters")
    journal.commit(again)
    journal.commit(again)  # as after a commit whose answer was lost
    assert journal.states([f"job-{seq}" for seq in range(1, 6)]) == {
        "job-3": "completed",
        "job-4": "completed",
        "job-5": "queued",
    }
    assert old_seqs(journal) == [4], "no later pass tries it again"
    (said,) = caplog.messages
    assert "keeps jobs that can't be read or deleted (numbers: 3)" in said


@pytest.mark.parametrize("at", [1, 700, 1_400])
def test_a_row_at_fault_among_many_is_found_with_few_tries_to_delete_them_all(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    seqs = list(range(1, 1_401))
    journal.commit(ended(*(seq for seq in seqs if seq != at)))
    journal.commit(ended(at, payload=LONG))
    break_chain(journal, b"Z")
    tried: list[int] = []

    def write(writer: sqlite3.Connection, rows: Rows, real: Callable[..., int] = sparing.write_rows) -> int:
        tried.append(len(rows.deletes))
        return real(writer, rows)

    monkeypatch.setattr(sparing, "write_rows", write)
    journal.commit(Rows(deletes=seqs, jobs=[(2_000, "new", b"h", b"p")]))
    assert journal.states(["new", *(f"job-{seq}" for seq in seqs)]) == {"new": "queued", f"job-{at}": "completed"}
    assert sum(tried) < 8 * len(seqs)


def test_a_dead_letter_that_can_not_be_deleted_is_none_any_more(journal: SqliteJournal) -> None:
    journal.commit(ended(1, state="dead_letter", payload=LONG))
    journal.commit(ended(2, state="dead_letter"))
    break_chain(journal, b"Z")
    journal.commit(Rows(deletes=[1]))
    assert journal.dead_letter_seqs(before_seq=9, limit=9) == [2]
    assert journal.count_dead_letters() == 1


def test_a_job_of_a_dropped_batch_that_can_not_be_deleted_does_not_run_after_a_restart(journal: SqliteJournal) -> None:
    journal.commit(Rows(jobs=[(1, "job-1", b"header", LONG), (2, "job-2", b"header", b"p")]))
    break_chain(journal, b"Z")
    journal.commit(Rows(deletes=[1]))
    with journal.recover() as found:
        assert [row[0] for row in found.rows] == [2]


@pytest.mark.parametrize("long", ["spec", "body"])
def test_a_batch_that_can_not_be_forgotten_stays_and_others_are_forgotten(journal: SqliteJournal, long: str) -> None:
    for rows in (batch(1), batch(2, **{long: LONG}), batch(3)):
        journal.commit(rows)
    break_chain(journal, b"Z")
    journal.commit(Rows(batches_before=2.0))
    assert not journal.has_older(batches_before=2.0), "no later pass tries it again"
    assert journal.batch("batch-1") is None
    assert journal.batch("batch-3") is None
    journal.commit(batch(4))
    journal.commit(Rows(batches_before=2.0))
    assert journal.batch("batch-4") is None


@pytest.mark.parametrize("long", ["spec", "body"])
def test_a_batch_that_can_not_be_dropped_keeps_no_commit_from_the_disk(journal: SqliteJournal, long: str) -> None:
    journal.commit(batch(1, **{long: LONG}))
    break_chain(journal, b"Z")
    journal.commit(Rows(dropped=[1], jobs=[(1, "job-1", b"h", b"p")]))
    assert journal.states(["job-1"]) == {"job-1": "queued"}


def test_keys_on_a_damaged_page_keep_no_commit_from_the_disk(journal: SqliteJournal) -> None:
    keys = [KeyRow(f"key-{n:05}" + "x" * 200, f"job-{n}", b"d" * 32, float(n), n, n, None) for n in range(1, 200)]
    journal.commit(Rows(keys=keys))
    _, *leaves = pages_of(journal, "sqlite_autoindex_idempotency_1")
    overwrite(journal, leaves[0], b"\xff" * 16)
    freed, kept = keys[::2], keys[1::2]
    rows = Rows(
        free_keys=[(row.key, row.job_id) for row in freed],
        key_times=[(500.0, row.key, row.job_id) for row in kept],
        jobs=[(1, "job-1", b"h", b"p")],
    )
    journal.commit(rows)
    assert journal.states(["job-1"]) == {"job-1": "queued"}


@pytest.mark.parametrize("other", [b"jo\xff-2", b"jox-2"])
def test_a_job_whose_id_is_not_that_of_its_index_keeps_no_other_from_being_deleted(
    journal: SqliteJournal, other: bytes
) -> None:
    journal.commit(ended(1, 2, 3))
    alter(journal, "jobs", b"job-2", other)
    journal.commit(Rows(deletes=old_seqs(journal)))
    assert old_seqs(journal) == []
    assert journal.payloads([1, 2, 3]).keys() == {2}


def test_metadata_that_can_not_be_deleted_keeps_no_commit_from_the_disk(journal: SqliteJournal) -> None:
    journal.commit(replace(ended(1, 2), shared=[(1, 2, LONG)]))
    journal.commit(ended(3))
    break_chain(journal, b"Z")
    journal.commit(Rows(deletes=[1, 2, 3], jobs=[(4, "job-4", b"h", b"p")]))
    assert journal.states(["job-4"]) == {"job-4": "queued"}
    assert 3 not in journal.payloads([3])
    assert old_seqs(journal) == []


def test_a_commit_that_can_not_be_written_without_its_deletes_either_raises(journal: SqliteJournal) -> None:
    journal.commit(ended(1, 2))
    (root,) = pages_of(journal, "states")
    overwrite(journal, root, b"\xff" * 16)
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        journal.commit(Rows(deletes=[1], states=[(2, "failed", b"p", 2.0)], jobs=[(3, "job-3", b"h", b"p")]))
    assert journal.payloads([1, 2, 3]).keys() == {1, 2}, "a commit is written as a whole or not at all"


def test_whichever_page_breaks_a_commit_is_written_if_it_can_be_without_its_deletes(tmp_path: Path) -> None:
    """The rest of the commit is the measure: where that can be written, deletes never keep it from the disk."""
    whole = _filled(tmp_path / "journal.db")
    content = whole.path.read_bytes()
    whole.close()
    gone = list(range(2, 30, 2))
    rest = Rows(jobs=[(1_000, "new", b"h", b"p")], counters=b"c")
    counts = {True: 0, False: 0}
    for page in range(len(content) // PAGE):
        can_be, _ = _commits(whole.path, content, page, rest)
        done, old = _commits(whole.path, content, page, replace(rest, deletes=gone, batches_before=25.0))
        assert done == can_be, f"page {page}"
        assert not done or not set(gone) & set(old), f"page {page}: a later pass tries these again"
        counts[done] += 1
    assert counts[True] > counts[False] > 0


def _commits(path: Path, content: bytes, page: int, rows: Rows) -> tuple[bool, list[int]]:
    """Return whether a commit is written where a page is damaged, and which jobs a later pass would delete."""
    for file in path.parent.glob("journal.db*"):
        file.unlink()
    path.write_bytes(content)
    with closing(SqliteJournal(path, durability="off")) as journal:
        try:
            overwrite(journal, page, _JUNK[page % 3])
            journal.commit(rows)
        except sqlite3.DatabaseError:
            return False, []
        try:
            return True, old_seqs(journal)
        except sqlite3.DatabaseError:
            return True, []


def _filled(path: Path) -> SqliteJournal:
    journal = SqliteJournal(path, durability="off")
    for seq in range(1, 31):
        journal.commit(ended(seq, payload=bytes([65 + seq % 26]) * (18_000 if seq % 5 == 0 else 900)))
        journal.commit(Rows(keys=[KeyRow(f"key-{seq}", f"job-{seq}", b"d", float(seq), seq, seq, None)]))
        journal.commit(batch(seq, spec=b"spec" * 500, body=b"body" * 100))
    fold(journal)
    return journal


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_FULL, False),
    ],
)
def test_only_a_page_that_can_not_be_read_or_followed_is_damage(code: int, expected: bool) -> None:
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    assert is_damage(error) is expected
