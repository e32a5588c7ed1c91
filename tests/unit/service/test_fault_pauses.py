"""Faults that no job or outcome explains: what ends the process again and again becomes rare, and the rest goes on."""

from __future__ import annotations

from typing import Any

import pytest

from aiqueue.errors import QueueUnavailable
from aiqueue.testing.jobs import POOL, completed, group
from aiqueue.testing.memory_journal import MemoryJournal, disk_full
from tests.tools.faulty_queue import Bug, Queue
from tests.tools.marked_engine import break_on
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until

QUARTER_S = 900


def claims_of_pool_fail(engine: Any) -> None:
    """A claim in the pool raises, whoever asks, before a job is in hand."""
    take = engine.core.lanes.take

    def broken(pool: str, *rest: Any, **more: Any) -> Any:
        if pool == POOL:
            raise KeyError("lane")
        return take(pool, *rest, **more)

    engine.core.lanes.take = broken


def claims_of_one_worker_fail(engine: Any) -> None:
    """A claim raises where one worker asks."""
    grant = engine.core.leases.grant

    def broken(worker: Any, job: Any) -> Any:
        if worker.id == "ill":
            raise KeyError(worker.id)
        return grant(worker, job)

    engine.core.leases.grant = broken


def calls_of_one_worker_fail(engine: Any) -> None:
    """Whatever one worker says ends in an exception."""
    heard = engine.core.leases.heard

    def broken(worker_id: str, *rest: Any, **more: Any) -> Any:
        if worker_id == "ill":
            raise KeyError(worker_id)
        return heard(worker_id, *rest, **more)

    engine.core.leases.heard = broken


async def test_claims_that_end_the_process_become_rare_and_what_workers_report_is_taken() -> None:
    queue = Queue(lambda engine: None)
    await queue.now.submit("a", "b", "c")
    assert sorted(await queue.now.claim(2)) == ["a", "b"]
    queue.bug = claims_of_pool_fail
    queue.bug(queue.now.service._engine)
    for _ in range(QUARTER_S):
        for worker in ("worker-1", "worker-2"):
            await queue.ask(worker)
        queue.wait(1.0)
    assert queue.ends <= 10 + 2 * QUARTER_S / 60
    before = queue.ends
    while await queue.ask("worker-1", completed("a"), completed("b")) is None:
        assert queue.ends <= before + 1, "the claim that comes with the outcomes is not put off"
    assert (await queue.now.view("a")).status == "completed"
    await queue.now.service.close()


async def test_claims_that_fail_in_one_pool_stop_neither_submits_nor_another_pool() -> None:
    queue = Queue(claims_of_pool_fail)
    for _ in range(4):
        await queue.ask("worker-1")
        await queue.ask("worker-2")
    before = queue.ends
    assert await queue.now.submit("a") is None
    assert await queue.now.submit("b", provider="other") is None
    reply = await queue.ask("worker-3", pool="other")
    assert reply is not None
    assert [job.job_id for job in reply.claims] == ["b"]
    assert queue.ends == before
    await queue.now.service.close()


@pytest.mark.parametrize("bug", [claims_of_one_worker_fail, calls_of_one_worker_fail])
async def test_one_worker_whose_calls_end_the_process_keeps_no_other_of_its_pool_from_work(bug: Bug) -> None:
    queue = Queue(bug)
    done = 0
    for number in range(200):
        try:
            await queue.now.submit(f"job-{number}")
        except QueueUnavailable:  # a worker that waits was to be given it
            await queue.back()
        await queue.ask("ill")
        if reply := await queue.ask("well"):
            done += len(reply.claims)
            if reply.claims:
                await queue.ask("well", *(completed(job.job_id, job.attempt) for job in reply.claims), slots=0)
        queue.wait(1.0)
    assert queue.ends <= 12
    assert done >= 190
    await queue.now.service.close()


async def test_work_that_can_not_be_handed_out_is_fetched() -> None:
    queue = Queue(lambda engine: None)
    queue.now.service._workers.wake = lambda: 1 // 0  # type: ignore[method-assign,assignment]
    with pytest.raises(QueueUnavailable):
        await queue.now.submit("a")
    await queue.back()
    queue.now.service._workers.wake = lambda: 1 // 0  # type: ignore[method-assign,assignment]
    assert await queue.now.submit("b") is None
    assert "b" in await queue.now.claim(2)  # and "a", if it came to disk
    assert queue.ends == 1
    await queue.now.service.close()


async def test_a_queue_that_can_not_tell_of_its_restart_goes_on() -> None:
    queue = ServiceHarness()
    queue.service._faults.trip("Announce", ZeroDivisionError())
    after = await queue.crashed()
    assert after.service._faults.restarts[0] == 1
    assert await after.submit("a") is None
    assert [event.name for event in await after.events()] == ["job:submitted"]
    await after.service.close()


async def test_a_note_that_can_not_be_written_keeps_the_process_from_ending_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = ServiceHarness()
    ended: list[bytes] = []
    queue.service._faults._end = lambda: ended.append(queue.journal.read_note())
    queue.service._faults.note_again_s = 0.0
    write, tries = MemoryJournal.write_note, []

    def full(journal: MemoryJournal, body: bytes) -> None:
        tries.append(body)
        if len(tries) < 5:
            raise disk_full()
        write(journal, body)

    monkeypatch.setattr(MemoryJournal, "write_note", full)
    break_on(queue.service._engine, "bad", submit=True)
    for _ in range(3):
        with pytest.raises(QueueUnavailable):
            await queue.service.submit([group("bad")])
    assert ended == []
    await until(lambda: ended)
    assert (len(tries), len(ended), b"ZeroDivisionError" in ended[0]) == (5, 1, True)
    await queue.service.close()


async def test_a_note_that_can_never_be_written_lets_the_process_end_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(journal: MemoryJournal, body: bytes) -> None:
        raise disk_full()

    monkeypatch.setattr(MemoryJournal, "write_note", full)
    queue = ServiceHarness()
    ended: list[int] = []
    queue.service._faults._end = lambda: ended.append(1)
    queue.service._faults.note_again_s = 0.0
    queue.service._faults.trip("a test", ZeroDivisionError())
    await until(lambda: ended)
    assert ended == [1]
    await queue.service.close()


async def test_calls_that_fail_again_and_again_push_no_other_blame_out_of_the_note() -> None:
    queue = ServiceHarness()
    faults = queue.service._faults
    faults.trip("Submit", ZeroDivisionError(), ["guilty"], alone=True)
    for number in range(1_000):
        faults.failed = ""
        faults.trip("Exchange", ZeroDivisionError(), [f"claim-{number % 3}", "claims"], alone=True)
    after = await queue.crashed()
    assert after.service._faults.is_guilty("guilty")
    await after.service.close()
