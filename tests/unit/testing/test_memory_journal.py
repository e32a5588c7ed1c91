"""What the journal for tests adds to what every journal promises (see ``tests/unit/journal/test_contract.py``)."""

from __future__ import annotations

import threading

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.testing.memory_journal import MemoryJournal

WAIT_S = 10.0  # a limit, not a delay


def job(seq: int) -> Rows:
    return Rows(jobs=[(seq, f"job-{seq}", b"h", b"p")])


def test_commits_fail_as_often_as_they_are_told_to_and_write_nothing() -> None:
    journal = MemoryJournal()
    journal.fail_next(2)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            journal.commit(job(1))
    assert journal.jobs(["job-1"]) == {}
    journal.commit(job(1))
    assert (journal.commits, journal.failed_commits) == (1, 2)


def test_a_commit_can_fail_after_it_was_written() -> None:
    journal = MemoryJournal()
    journal.fail_next(error=TimeoutError("lost"), after_writing=True)
    with pytest.raises(TimeoutError):
        journal.commit(job(1))
    assert set(journal.jobs(["job-1"])) == {"job-1"}


def test_a_journal_that_broke_down_fails_until_it_is_mended() -> None:
    journal = MemoryJournal()
    journal.break_down()
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            journal.commit(job(1))
    journal.mend()
    journal.commit(job(1))


def test_a_held_commit_waits_and_says_so() -> None:
    journal = MemoryJournal()
    journal.hold()
    commit = threading.Thread(target=journal.commit, args=(job(1),))
    commit.start()
    assert journal.held.wait(WAIT_S)
    assert journal.jobs(["job-1"]) == {}
    journal.release()
    commit.join(WAIT_S)
    assert set(journal.jobs(["job-1"])) == {"job-1"}


def test_a_crash_leaves_what_was_committed_and_takes_what_was_not() -> None:
    journal = MemoryJournal()
    journal.commit(job(1))
    journal.hold()
    errors: list[OSError] = []

    def commit() -> None:
        try:
            journal.commit(job(2))
        except OSError as error:
            errors.append(error)

    late = threading.Thread(target=commit)
    late.start()
    assert journal.held.wait(WAIT_S)
    survivor = journal.crash()
    late.join(WAIT_S)
    assert len(errors) == 1
    assert set(survivor.jobs(["job-1", "job-2"])) == {"job-1"}
    with pytest.raises(OSError, match="dead"):
        journal.jobs(["job-1"])
