"""A disk that is full, and then is not. It is a small file system of its own, in memory."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.driver import QueueProcess, Refused, running

_JOB_BYTES = 20_000


def mount(*options: str) -> None:
    """Mount, or skip the test where that is not possible."""
    program = shutil.which("mount")
    done = subprocess.run([program or "mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"can't mount a small file system here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(queue: QueueProcess, first: int) -> list[str]:
    """Submit jobs until one is refused; return those acknowledged."""
    acknowledged: list[str] = []
    for number in range(first, first + 3_000):
        try:
            queue.submit(f"job-{number}", payload=_JOB_BYTES)
        except Refused:
            return acknowledged
        acknowledged.append(f"job-{number}")
    raise AssertionError("the disk never filled up")


def takes_jobs_again(queue: QueueProcess) -> bool:
    """Wait until a submit is accepted."""
    for number in range(100):
        try:
            return bool(queue.submit(f"again-{number}") == "accepted")
        except Refused:
            threading.Event().wait(0.1)
    return False


def test_a_full_disk_refuses_jobs_lets_running_ones_end_and_goes_on_when_there_is_room(disk: Path) -> None:
    with running(disk / "journal.db") as queue:
        queue.submit(*(f"early-{number}" for number in range(50)))
        held = queue.call("claim", worker="w", slots=50)
        acknowledged = fill(queue, 0)
        with pytest.raises(Refused, match=r"JournalUnavailable: the journal's disk is full"):
            queue.submit("one-more")
        assert shutil.disk_usage(disk).free < 16 * 2**20
        for at in range(0, 50, 5):  # ten commits on a disk that is full
            assert queue.call("complete", worker="w", jobs=held[at : at + 5]) == "taken"
        assert queue.states([job for job, _ in held]) == ["completed"] * 50
        with pytest.raises(Refused, match="JournalUnavailable"):
            queue.submit("still-not")
        mount("-o", "remount,size=48m", str(disk))
        assert takes_jobs_again(queue)
        before = queue.pid
        acknowledged += fill(queue, 10_000)  # a second time
        assert queue.pid == before
        print(f"{len(acknowledged)} jobs acknowledged, 50 ended on a full disk")
        queue.kill()
    with running(disk / "journal.db") as queue:
        assert queue.states(acknowledged) == ["queued"] * len(acknowledged)
        assert queue.states(["one-more", "still-not"]) == [None, None]
        assert queue.states([job for job, _ in held]) == ["completed"] * 50
