"""A second queue on the same journal, and one that slept while others went on."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

import pytest

from tests.faults.driver import Refused, running

TAKEN = "JournalUnavailable: another queue has opened the journal"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal lies."""
    return tmp_path / "journal.db"


def test_a_second_queue_on_the_same_journal_does_not_start(path: Path) -> None:
    with running(path) as first:
        first.submit("a")
        with pytest.raises(Refused, match=r"StartError: the journal .* is in use by another queue"):
            running(path).__enter__()
        assert first.submit("b") == "accepted"


def test_a_queue_that_lost_its_lock_acknowledges_nothing_more(path: Path) -> None:
    with running(path) as first:
        first.submit("a", "b")
        assert first.call("claim", worker="w", slots=1) == [["a", 1]]
        path.with_name("journal.db.lock").unlink()
        with running(path) as second:
            assert second.submit("c") == "accepted"
            for ask in (
                {"ask": "submit", "ids": ["d"], "payload": 1},
                {"ask": "complete", "worker": "w", "jobs": [["a", 1]]},
                {"ask": "claim", "worker": "w", "slots": 4},
                {"ask": "submit", "ids": ["e"], "payload": 1},
                {"ask": "look", "ids": ["a"]},
            ):
                with pytest.raises(Refused, match=TAKEN):
                    first.call(**ask)
            assert second.states(["a", "b", "c", "d", "e"]) == ["processing", "queued", "queued", None, None]
            second.call("complete", worker="w", jobs=[["a", 1]])  # its worker asks the one that lives
            assert second.states(["a"]) == ["completed"]


def test_a_queue_that_slept_through_its_replacement_grants_no_lease(path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    jobs = [f"job-{number}" for number in range(40)]
    with running(path) as first:
        first.submit(*jobs)
        held = first.call("claim", worker="before", slots=10)
        first.signal(signal.SIGSTOP)
        asked = [first.send("claim", worker=f"late-{number}", slots=10) for number in range(3)]  # read when it wakes
        path.with_name("journal.db.lock").unlink()
        with running(path) as second:
            granted = held + second.call("claim", worker="after", slots=random.Random(seed).randint(1, 29))
            first.signal(signal.SIGCONT)
            for number in asked:
                with pytest.raises(Refused, match=TAKEN):
                    first.wait(number)
            granted += second.call("claim", worker="after-2", slots=40)
            assert sorted(granted) == sorted([job, 1] for job in jobs)  # each job once, each attempt once
            assert second.call("stats") == {"total": 40, "queued": 0, "processing": 40}


@pytest.mark.slow
def test_a_queue_that_slept_longer_than_its_leases_takes_none_from_living_workers(path: Path) -> None:
    with running(path, heartbeat_s=1.0) as queue:  # two missed heartbeats: a lease of 2 s
        queue.submit(*(f"job-{number}" for number in range(20)))
        held = queue.call("claim", worker="alive", slots=20)
        assert len(held) == 20
        queue.signal(signal.SIGSTOP)
        waiting = queue.send("claim", worker="hungry", slots=20)
        results = queue.send("complete", worker="alive", jobs=held)
        threading.Event().wait(6.5)  # more than three leases
        queue.signal(signal.SIGCONT)
        assert queue.wait(waiting) == []  # nothing was free to be granted a second time
        assert queue.wait(results) == "taken"
        assert queue.call("look", ids=[job for job, _ in held]) == [["completed", 1]] * 20
        assert queue.call("stats")["processing"] == 0
