"""A queue process whose engine raises: it ends, its successor goes on from the journal, and that comes to an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import Refused, running


class Successors:
    """Processes with the same bug on one journal, each started when the one before it has ended."""

    def __init__(self, path: Path, bug: str) -> None:
        self.path, self.bug, self.ends = path, bug, 0

    def until_answered(self, ask: str, **request: Any) -> Any:
        """Ask one process after the other, as a client does, until there is an answer."""
        while self.ends < 9:
            with running(self.path, bug=self.bug) as queue:
                try:
                    return queue.call(ask, again=self.ends > 0, **request)
                except Refused:
                    assert queue._process.wait(30) == 70
                    self.ends += 1
        raise AssertionError("the process ended again and again")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal lies."""
    return tmp_path / "journal.db"


def test_a_submit_that_ends_the_process_is_refused_by_a_successor_and_others_are_accepted(path: Path) -> None:
    queues = Successors(path, "bad:submit")
    answers = queues.until_answered("submit_each", ids=["a", "bad", "b"])
    assert (answers, queues.ends) == (["", "queue_fault", ""], 2)
    with running(path, bug=queues.bug) as queue:
        assert queue.call("submit_each", ids=["bad", "c"], again=True) == ["queue_fault", ""]
        assert sorted(job for job, _ in queue.call("claim", worker="w", slots=9)) == ["a", "b", "c"]
        queue.stop()


def test_an_outcome_that_ends_the_process_fails_its_job_and_a_successor_takes_the_others(path: Path) -> None:
    with running(path) as queue:
        assert queue.submit("a", "bad", "b") == "accepted"
        held = queue.call("claim", worker="w", slots=3)
        queue.kill()
    queues = Successors(path, "bad:completed")
    assert queues.until_answered("complete", worker="w", jobs=held) == "taken"
    assert queues.ends == 2
    with running(path) as queue:
        assert queue.states(["a", "bad", "b"]) == ["completed", "failed", "completed"]


def test_a_job_that_no_process_can_end_is_set_aside_and_each_successor_says_why_it_came(path: Path) -> None:
    with running(path) as queue:
        queue.submit("a", "bad")
        held = queue.call("claim", worker="w", slots=2)
        (_, _, events) = queue.call("told", after=0)
        queue.kill()
    queues = Successors(path, "bad:completed,failed,dead_letter,cancelled,queued,scheduled")
    assert queues.until_answered("complete", worker="w", jobs=held) == "taken"
    assert queues.ends == 3
    with running(path) as queue:
        assert queue.states(["a", "bad"]) == ["completed", "failed"]
        restarts, reason, _ = queue.call("told", after=len(events))
        assert (restarts, "Report failed with ZeroDivisionError" in reason) == (3, True)
