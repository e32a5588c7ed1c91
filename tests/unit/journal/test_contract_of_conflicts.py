"""What every journal promises about ids and numbers: the same rows twice are one, others of the same id are refused."""

from __future__ import annotations

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.journal.base import Journal, JournalRefused


def rows(seq: int, job_id: str, *, payload: bytes = b"p") -> Rows:
    return Rows(jobs=[(seq, job_id, b"header", payload)])


def batch(no: int, batch_id: str) -> Rows:
    return Rows(batches=[(no, batch_id, b"spec")], batch_states=[(no, b"state", 0.0)])


def test_the_same_commit_twice_is_one(journal: Journal) -> None:
    for _ in range(2):
        journal.commit(rows(1, "a"))
        journal.commit(batch(1, "b"))
    assert journal.count_jobs() == 1


@pytest.mark.parametrize("second", [rows(2, "a"), rows(1, "b")], ids=["id", "seq"])
def test_a_job_whose_id_or_seq_is_taken_is_refused_and_nothing_of_its_commit_is_written(
    journal: Journal, second: Rows
) -> None:
    journal.commit(rows(1, "a"))
    second.jobs.insert(0, (3, "innocent", b"header", b"p"))
    with pytest.raises(JournalRefused, match="is taken"):
        journal.commit(second)
    assert set(journal.jobs(["a", "b", "innocent"])) == {"a"}
    journal.commit(rows(4, "later"))
    assert journal.count_jobs() == 2


@pytest.mark.parametrize("second", [batch(2, "b"), batch(1, "c")], ids=["id", "number"])
def test_a_batch_whose_id_or_number_is_taken_is_refused(journal: Journal, second: Rows) -> None:
    journal.commit(batch(1, "b"))
    with pytest.raises(JournalRefused, match="is taken"):
        journal.commit(second)
    assert journal.batch("b") == (1, b"spec", b"state")
    assert journal.batch("c") is None


def test_the_id_of_a_job_that_is_deleted_in_the_same_commit_is_free(journal: Journal) -> None:
    journal.commit(rows(1, "a"))
    merged = Rows(deletes=[1], states=[(1, "failed", b"p", 9.0)])
    merged.extend(rows(2, "a", payload=b"second"))
    merged.extend(Rows(deletes=[2]))
    merged.extend(rows(3, "a", payload=b"third"))
    journal.commit(merged)
    assert journal.jobs(["a"], with_payload=True)["a"][:7:6] == (3, b"third")
    assert (journal.count_jobs(), journal.ended(after=(0.0, 0), before=99.0, limit=9)) == (1, [])


def test_the_id_of_a_batch_that_is_dropped_in_the_same_commit_is_free(journal: Journal) -> None:
    merged = batch(1, "b")
    merged.extend(Rows(dropped=[1]))
    merged.extend(batch(2, "b"))
    journal.commit(merged)
    assert journal.batch("b") == (2, b"spec", b"state")
