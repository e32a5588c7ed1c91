"""Syncs that fail or take long, and what is told before and after each: at the level of system calls."""

from __future__ import annotations

import queue as queues
import re
import threading
from pathlib import Path

from tests.faults.driver import QueueProcess, Refused, running, strace

_SYNCS = "fsync,fdatasync"


def error_of(process: QueueProcess, number: int) -> str | None:
    """The error that was answered; None if there is no answer yet."""
    try:
        process.wait(number, limit_s=0.2)
    except Refused as refused:
        return str(refused)
    except queues.Empty:
        return None
    raise AssertionError("acknowledged without a sync")


def test_nothing_is_acknowledged_before_its_sync(tmp_path: Path) -> None:
    log = tmp_path / "strace.log"
    jobs = [f"job-{number}" for number in range(25)]
    with running(tmp_path / "journal.db") as queue:
        with strace(queue.pid, "-y", "-s", "400", "-o", str(log), "-e", f"trace={_SYNCS},write"):
            for job in jobs:
                queue.submit(job)
        queue.kill()
    # The end of a call, also of one that another thread's came into the middle of.
    sync = re.compile(r"sync(\(.*journal\.db-wal>\)| resumed>\)) += 0")
    steps = [
        "w" if "accepted" in line else "s"
        for line in log.read_text().splitlines()
        if sync.search(line) or "accepted" in line
    ]
    order = "".join(steps)
    print(f"{order.count('s')} syncs, {order.count('w')} answers: {order}")
    assert order.count("w") == len(jobs)
    assert re.fullmatch(r"(s+w)+", order), "an answer left before the sync of its commit"


def test_a_sync_that_fails_acknowledges_nothing_and_the_queue_goes_on_when_syncs_work(tmp_path: Path) -> None:
    acknowledged = []
    with running(tmp_path / "journal.db") as queue:
        queue.submit("before")
        held = queue.call("claim", worker="w", slots=1)
        with strace(
            queue.pid, "-o", str(tmp_path / "log"), "-e", f"trace={_SYNCS}", "-e", f"inject={_SYNCS}:error=EIO"
        ):
            jobs = ["during"]
            waiting = [queue.send("submit", ids=jobs, payload=400), queue.send("complete", worker="w", jobs=held)]
            while (told := error_of(queue, number := queue.send("submit", ids=["more"], payload=1))) is None:
                jobs.append("more")  # handed over before the error was known: it waits for the disk like the first
                waiting.append(number)
            assert "JournalUnavailable: the journal can't be written (disk I/O error)" in told
            for _ in range(3):
                threading.Event().wait(0.6)  # it has been tried again
                assert error_of(queue, queue.send("submit", ids=["refused"], payload=1)) == told
            assert all(queue._answers[number].empty() for number in waiting), "acknowledged without a sync"
        for number in waiting:
            assert queue.wait(number) in ("accepted", "taken")  # the same commit, tried again
        for number in range(20):
            acknowledged.append(f"after-{number}")
            queue.submit(acknowledged[-1])
        queue.kill()
    failed = (tmp_path / "log").read_text().count("EIO")
    print(f"{failed} syncs failed")
    assert failed > 0
    with running(tmp_path / "journal.db") as queue:
        assert queue.states(["before", *jobs, *acknowledged]) == ["completed", *["queued"] * (len(jobs) + 20)]
        assert queue.states(["refused"]) == [None]


def test_on_a_slow_disk_more_jobs_share_a_sync(tmp_path: Path) -> None:
    jobs = [f"job-{number}" for number in range(300)]
    delay = f"inject={_SYNCS}:delay_enter=150000"  # microseconds
    with running(tmp_path / "journal.db") as queue:
        with strace(queue.pid, "-o", str(tmp_path / "log"), "-e", f"trace={_SYNCS}", "-e", delay):
            numbers = [queue.send("submit", ids=[job], payload=400) for job in jobs]
            assert {queue.wait(number) for number in numbers} == {"accepted"}
            assert queue.call("stats")["total"] == len(jobs)  # what needs no disk is answered all the time
        queue.kill()
    syncs = (tmp_path / "log").read_text().count("sync(")
    print(f"{len(jobs)} submits shared {syncs} syncs of 150 ms")
    assert 1 <= syncs <= len(jobs) // 10
    with running(tmp_path / "journal.db") as queue:
        assert queue.states(jobs) == ["queued"] * len(jobs)
