"""What a killed queue left is damaged, cut or replaced. What was acknowledged is there, or missed at the start."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aiqueue.errors import StartError
from aiqueue.journal.sqlite import SqliteJournal
from tests.faults.driver import Refused, running

_JOBS = [f"job-{number}" for number in range(60)]
_TRIES = 60


class Leftovers:
    """The files of a queue that was killed after it had acknowledged all of ``_JOBS``, one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._copies = folder, 0
        (folder / "left").mkdir()
        with running(folder / "left" / "journal.db") as queue:
            for job in _JOBS:
                assert queue.submit(job) == "accepted"
            queue.kill()

    def copy(self) -> Path:
        """Return the journal of a fresh copy of the files."""
        self._copies += 1
        copied = self._folder / f"copy-{self._copies}"
        shutil.copytree(self._folder / "left", copied)
        return copied / "journal.db"


@pytest.fixture(scope="module")
def leftovers(tmp_path_factory: pytest.TempPathFactory) -> Leftovers:
    """Return what a killed queue left."""
    return Leftovers(tmp_path_factory.mktemp("leftovers"))


@pytest.fixture
def draw() -> Iterator[random.Random]:
    """Return a source of draws whose seed is printed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def jobs_after_start(path: Path, accept_loss: int | None = None) -> list[str]:
    """Open the journal; return which of the acknowledged jobs it has."""
    with closing(SqliteJournal(path, accept_loss=accept_loss)) as journal:
        found = journal.jobs(_JOBS, with_payload=True)
        assert {job.payload for job in found.values()} <= {b"p" * 400}
        return [job for job in _JOBS if job in found]


def missed(path: Path) -> int:
    """Open a journal that lacks something; return where it says that it ends."""
    with pytest.raises(StartError, match=r"acknowledged commits are missing|is damaged") as refused:
        jobs_after_start(path)
    return int(str(refused.value).partition("--accept-loss ")[2].partition("`")[0] or -1)


def test_what_is_left_of_a_killed_queue_is_all_there(leftovers: Leftovers) -> None:
    assert jobs_after_start(leftovers.copy()) == _JOBS


def test_a_wal_torn_at_its_end_is_missed_at_the_start(leftovers: Leftovers, draw: random.Random) -> None:
    lost = 0
    for _ in range(_TRIES):
        path = leftovers.copy()
        wal = wal_of(path)
        wal.write_bytes(wal.read_bytes()[: -draw.randint(1, 4_096)])
        there = jobs_after_start(path, accept_loss=missed(path))
        assert there == _JOBS[: len(there)]  # a prefix: nothing from the middle
        lost += len(_JOBS) - len(there)
    print(f"{_TRIES} torn tails, {lost} acknowledged jobs lost, each missed")
    assert lost >= _TRIES


def test_a_bit_flipped_in_the_wal_is_missed_at_the_start(leftovers: Leftovers, draw: random.Random) -> None:
    lost = 0
    for _ in range(_TRIES):
        path = leftovers.copy()
        content = bytearray(wal_of(path).read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        wal_of(path).write_bytes(content)
        there = jobs_after_start(path, accept_loss=missed(path))
        assert there == _JOBS[: len(there)]
        lost += len(_JOBS) - len(there)
    print(f"{_TRIES} flipped bits, {lost} acknowledged jobs lost, each missed")


def test_a_bit_flipped_in_the_database_of_a_stopped_queue_is_missed_at_the_start(
    leftovers: Leftovers, draw: random.Random
) -> None:
    whole = leftovers.copy()
    SqliteJournal(whole).close()
    content = whole.read_bytes()
    schema = content.index(b"CREATE TABLE"), content.rindex(b"CREATE", 0, 8_192)  # SQLite quotes it in its errors
    for number in range(2 * _TRIES):
        at, bit = draw.randrange(*schema) if number % 2 else draw.randrange(len(content)), 1 << draw.randrange(8)
        whole.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        with pytest.raises(StartError, match=re.escape(str(whole))):
            SqliteJournal(whole)
    whole.write_bytes(content)
    assert jobs_after_start(whole) == _JOBS


def test_a_missing_wal_is_missed_by_a_queue_that_starts(leftovers: Leftovers) -> None:
    path = leftovers.copy()
    wal_of(path).rename(path.with_name("elsewhere"))
    with pytest.raises(Refused, match=r"StartError: .* 61 of 61 acknowledged commits are missing at its end"):
        running(path).__enter__()
    path.with_name("elsewhere").rename(wal_of(path))  # what the message says to do first
    with running(path) as queue:
        assert queue.states(_JOBS) == ["queued"] * len(_JOBS)


def test_an_old_copy_of_the_database_is_missed_by_a_queue_that_starts(leftovers: Leftovers) -> None:
    path = leftovers.copy()
    SqliteJournal(path).close()
    backup = path.read_bytes()
    with running(path) as queue:
        queue.submit("after-the-backup")
        queue.stop()
    path.write_bytes(backup)
    with pytest.raises(Refused, match=r"StartError: .* 2 of 64 acknowledged commits are missing at its end"):
        running(path).__enter__()
