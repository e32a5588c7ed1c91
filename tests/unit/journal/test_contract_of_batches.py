"""What every journal promises of batches, the one for tests too."""

from __future__ import annotations

import pytest

from aiqueue.engine.batch_records import StoredBatch, encode_batch
from aiqueue.engine.effects import KeyRow, Rows
from aiqueue.journal.base import FORGOTTEN_AT_ONCE, Journal, PartRow


@pytest.fixture
def journal(journal: Journal) -> Journal:
    """Return a journal that holds a live batch of six jobs and an ended one of one job."""
    journal.commit(
        Rows(
            jobs=[(seq, f"job-{seq}", b"header", b"payload") for seq in range(1, 8)],
            batches=[(1, "batch-1", b"spec-1"), (2, "batch-2", b"spec-2")],
            batch_states=[(1, b"open", 0.0), (1, stored(4), 0.0), (2, stored(1), 50.0)],
            parts=[(1, 4, 3, 3), (1, 1, 3, 0), (2, 7, 1, 0)],
            ends=[(1, 2, 3), (1, 1, 5), (2, 1, 7)],
            states=[(3, "completed", b"p", 9.0), (5, "failed", b"p", 9.0), (7, "completed", b"p", 9.0)],
        )
    )
    return journal


def stored(ends: int) -> bytes:
    """Return the changing part of a batch's row."""
    return encode_batch(StoredBatch(phase="running", ends=ends))


def test_a_restart_finds_the_batches_that_have_not_ended(journal: Journal) -> None:
    with journal.recover() as found:
        assert list(found.batches) == [(1, b"spec-1", stored(4))]


def test_a_batch_is_found_whether_it_has_ended_or_not(journal: Journal) -> None:
    assert journal.batch("batch-1") == (1, b"spec-1", stored(4))
    assert journal.batch("batch-2") == (2, b"spec-2", stored(1))
    assert journal.batch("batch-3") is None


def test_the_parts_come_in_the_order_of_acceptance(journal: Journal) -> None:
    assert journal.parts(1) == [PartRow(1, 3, 0), PartRow(4, 3, 3)]
    assert journal.parts(9) == []


def test_the_ends_come_in_their_order_and_in_pages(journal: Journal) -> None:
    assert journal.batch_ends(1, after=0, limit=9) == [5, 3]
    assert journal.batch_ends(1, after=1, limit=9) == [3]
    assert journal.batch_ends(1, after=0, limit=1) == [5]


def test_jobs_come_in_the_order_they_are_asked_for(journal: Journal) -> None:
    found = journal.by_seq([5, 9, 1], with_payload=True)
    assert [(job.seq, job.state, job.payload) for job in found] == [(5, "failed", b"payload"), (1, "", b"payload")]
    assert journal.by_seq([1])[0].payload == b""
    assert journal.states(["job-1", "job-3", "nobody"]) == {"job-1": "queued", "job-3": "completed"}


def test_the_same_commit_twice_changes_nothing(journal: Journal) -> None:
    rows = Rows(batches=[(3, "batch-3", b"s")], batch_states=[(3, b"b", 0.0)], parts=[(3, 8, 1, 0)], ends=[(3, 1, 8)])
    journal.commit(rows)
    journal.commit(rows)
    assert journal.parts(3) == [PartRow(8, 1, 0)]
    assert journal.batch_ends(3, after=0, limit=9) == [8]


def test_a_dropped_batch_is_gone_with_all_that_belongs_to_it(journal: Journal) -> None:
    journal.commit(Rows(dropped=[1], deletes=[1, 2]))
    assert journal.batch("batch-1") is None
    assert journal.parts(1) == []
    assert journal.batch_ends(1, after=0, limit=9) == []
    assert set(journal.jobs(["job-1", "job-3"])) == {"job-3"}


def test_a_restart_finds_the_parts_of_the_batches_that_have_not_ended(journal: Journal) -> None:
    with journal.recover() as found:
        assert list(found.parts) == [(1, 1, 3), (1, 4, 3)]


def test_the_keys_of_a_dropped_batch_are_free_and_no_others(journal: Journal) -> None:
    keys = [KeyRow("mine", "job-1", b"d", 5.0, 1, 3, 1), KeyRow("other's", "job-7", b"d", 5.0, 7, 7, 2)]
    journal.commit(Rows(keys=[*keys, KeyRow("a schedule's", "s", b"d", 5.0)], states=[(1, "queued", b"", -0.5)]))
    in_one = [KeyRow("both in one commit", "job-8", b"d", 6.0, 8, 8, 3)]
    new = Rows(keys=in_one, batches=[(3, "batch-3", b"s")], batch_states=[(3, b"b", 0.0)], parts=[(3, 8, 1, 0)])
    new.extend(Rows(dropped=[1, 3], deletes=[1, 2]))
    journal.commit(new)
    asked = ["mine", "other's", "a schedule's", "both in one commit"]
    assert set(journal.keys(asked)) == {"other's", "a schedule's"}


def test_only_ended_batches_grow_old(journal: Journal) -> None:
    journal.commit(Rows(batches_before=50.0))
    assert journal.batch("batch-2") is not None
    journal.commit(Rows(batches_before=51.0))
    assert journal.batch("batch-2") is None
    assert journal.batch_ends(2, after=0, limit=9) == []
    assert journal.batch("batch-1") is not None


def test_one_commit_forgets_so_many_rows_of_ended_batches_and_the_batch_with_its_last_row(journal: Journal) -> None:
    large, small = FORGOTTEN_AT_ONCE + 200, 3
    journal.commit(
        Rows(
            batches=[(3, "large", b"s"), (4, "small", b"s")],
            batch_states=[(3, b"b", 60.0), (4, b"b", 61.0)],
            parts=[(3, 100 + at, 1, at) for at in range(5)],
            ends=[(3, n, 100 + n) for n in range(1, large + 1)] + [(4, n, 9_000 + n) for n in range(1, small + 1)],
        )
    )
    journal.commit(Rows(batches_before=70.0))  # batch-2 has three rows, the large one the others
    assert journal.batch("batch-2") is None
    assert journal.batch("large") is not None
    left = len(journal.batch_ends(3, after=0, limit=10_000))
    assert large - FORGOTTEN_AT_ONCE <= left < large
    assert journal.has_older(batches_before=70.0)
    journal.commit(Rows(batches_before=70.0))
    assert (journal.batch("large"), journal.batch("small")) == (None, None)
    assert (journal.batch_ends(3, after=0, limit=9), journal.batch_ends(4, after=0, limit=9)) == ([], [])
    assert (journal.parts(3), journal.has_older(batches_before=70.0)) == ([], False)
    assert journal.batch("batch-1") is not None
