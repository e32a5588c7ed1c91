"""Group commit."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.journal import writer as writer_module
from aiqueue.journal.base import JournalTaken
from aiqueue.journal.writer import GroupCommitWriter
from aiqueue.testing.memory_journal import MemoryJournal

WAIT_S = 10.0  # a limit, not a delay: what is waited for comes at once


def job(seq: int) -> Rows:
    return Rows(jobs=[(seq, f"job-{seq}", b"h", b"p")], counters=str(seq).encode())


class Watched:
    """A writer and what it said, in order."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal
        self.said: queue.Queue[object] = queue.Queue()
        self.transactions: list[list[int]] = []
        journal.on_commit = lambda rows: self.transactions.append([row[0] for row in rows.jobs])
        self.writer = GroupCommitWriter(journal, on_commit=self.said.put, on_failure=self._failed)

    def _failed(self, error: Exception | None) -> None:
        self.said.put("failed" if error else "mended")

    def next(self) -> object:
        return self.said.get(timeout=WAIT_S)

    def committed(self, count: int) -> None:
        """Wait until ``count`` batches more are on disk."""
        while count:
            said = self.next()
            assert isinstance(said, int), said
            count -= said

    def seqs(self) -> list[int]:
        with self.journal.recover() as found:
            return [row[0] for row in found.rows]


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Return a writer on a journal in memory."""
    made = Watched(MemoryJournal())
    yield made
    made.journal.release()
    made.writer.close()


@pytest.fixture
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer try again sooner than it does for people."""
    monkeypatch.setattr(writer_module, "_RETRY_S", 0.001)


def test_what_is_appended_is_committed_and_told(watched: Watched) -> None:
    watched.writer.append(job(1))
    watched.committed(1)
    assert watched.seqs() == [1]


def test_what_gathers_during_a_commit_shares_the_next_one(watched: Watched) -> None:
    watched.journal.hold()
    watched.writer.append(job(1))
    assert watched.journal.held.wait(WAIT_S)
    for seq in range(2, 50):
        watched.writer.append(job(seq))
    watched.journal.release()
    watched.committed(49)
    assert watched.transactions == [[1], list(range(2, 50))]
    assert watched.seqs() == list(range(1, 50))


def test_nothing_is_told_before_it_is_on_disk(watched: Watched) -> None:
    watched.journal.hold()
    watched.writer.append(job(1))
    assert watched.journal.held.wait(WAIT_S)
    assert watched.said.empty()
    assert watched.seqs() == []
    watched.journal.release()
    watched.committed(1)


def test_rows_of_a_failed_commit_stay_first_in_line(watched: Watched, quick_retry: None) -> None:
    watched.journal.break_down()
    watched.writer.append(job(1))
    assert watched.next() == "failed"
    watched.writer.append(job(2))
    watched.journal.mend()
    said = [watched.next() for _ in range(2)]
    while said[0] == "failed":
        said = [said[1], watched.next()]
    assert said[0] == "mended"
    watched.committed(2 - int(str(said[1])))
    assert watched.transactions == [[1], [2]]
    assert watched.journal.reopened >= 1


def test_a_commit_whose_answer_was_lost_is_tried_again_and_changes_nothing(watched: Watched, quick_retry: None) -> None:
    watched.journal.fail_next(after_writing=True)
    watched.writer.append(job(1))
    assert [watched.next() for _ in range(3)] == ["failed", "mended", 1]
    assert watched.seqs() == [1]


def test_a_journal_that_another_queue_took_ends_the_writer(watched: Watched) -> None:
    watched.journal.break_down(JournalTaken("another queue"))
    watched.writer.append(job(1))
    assert watched.next() == "failed"
    watched.journal.mend()
    watched.writer.append(job(2))
    watched.writer._thread.join(WAIT_S)
    assert not watched.writer._thread.is_alive()
    assert (watched.seqs(), watched.journal.reopened) == ([], 0)


def test_close_commits_what_is_pending(watched: Watched) -> None:
    watched.journal.hold()
    for seq in (1, 2, 3):
        watched.writer.append(job(seq))
    watched.journal.release()
    watched.writer.close()
    assert watched.seqs() == [1, 2, 3]


def test_close_gives_up_on_a_journal_that_can_not_be_written(watched: Watched) -> None:
    watched.journal.break_down()
    watched.writer.append(job(1))
    assert watched.next() == "failed"
    watched.writer.close()
    assert watched.seqs() == []
    assert not watched.writer._thread.is_alive()


def test_close_with_nothing_to_do_ends_at_once(watched: Watched) -> None:
    watched.writer.close()
    watched.writer.close()
    assert watched.journal.commits == 0


def test_the_log_is_folded_between_commits_once_there_were_some_and_its_failure_stops_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds: queue.Queue[int] = queue.Queue()

    def fold() -> None:
        folds.put(len(watched.transactions))
        raise OSError("the disk says no")

    monkeypatch.setattr(watched.journal, "fold_log", fold)
    for seq in range(1, 131):
        watched.writer.append(job(seq))
        watched.committed(1)
    assert [folds.get(timeout=WAIT_S) for _ in range(2)] == [64, 128]
    assert watched.seqs() == list(range(1, 131))


def test_the_log_is_not_folded_while_more_waits(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_FOLD_COMMITS", 1)
    folds: queue.Queue[list[list[int]]] = queue.Queue()
    monkeypatch.setattr(watched.journal, "fold_log", lambda: folds.put(list(watched.transactions)))
    watched.journal.hold()
    watched.writer.append(job(1))
    assert watched.journal.held.wait(WAIT_S)
    watched.writer.append(job(2))
    watched.journal.release()
    watched.committed(2)
    assert folds.get(timeout=WAIT_S) == [[1], [2]]
