"""Look-ups and lists in which one row can't be read or decoded: each other job is shown as it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest

from aiqueue.batch_protocol import BatchCall, ResultsCall
from aiqueue.protocol import BatchSpec, DeadLettersCall, JobView, SubmitGroup
from aiqueue.testing.jobs import chat, completed, failed, final, header, submission
from aiqueue.views import job_info
from tests.tools.broken_journal import BrokenJournal
from tests.tools.client_harness import ClientHarness
from tests.tools.service_harness import ServiceHarness

IDS = ["a", "b", "bad", "c", "d"]


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    """Return a queue whose jobs have completed: a batch of five."""
    made = ServiceHarness(journal=BrokenJournal())
    jobs = [submission(job_id, header(batch_id="batch")) for job_id in IDS]
    await made.service.submit([SubmitGroup(jobs, batch=BatchSpec("batch"))])
    yield made
    await made.service.close()


async def end(queue: ServiceHarness, *, well: bool = True) -> None:
    """Let all jobs end."""
    await queue.exchange(slots=8)
    await queue.exchange(*(completed(each) if well else failed(each, failure=final()) for each in IDS), slots=0)


def spoil(queue: ServiceHarness, how: str) -> None:
    """Let the row of one job be unreadable, or no row of ours."""
    journal = queue.journal
    assert isinstance(journal, BrokenJournal)
    seq = journal._disk.seqs["bad"]
    if how == "read":
        journal.broken = {"bad"}
    elif how == "progress":
        journal._disk.states[seq] = (journal._disk.states[seq][0], b"\xc1 no progress")
    else:
        journal._disk.jobs[seq] = journal._disk.jobs[seq]._replace(header=b"\xc1 no header")


def check(views: list[JobView | None], status: str) -> None:
    """See that one is shown with the error, and the others as they are."""
    assert [view and view.id for view in views] == IDS
    for view in views:
        assert view is not None
        assert job_info(view).status == status, view.id
        if view.id == "bad":
            assert view.failure is not None
            assert view.failure.kind == "record_unreadable"
            assert "job bad" in view.failure.message
        else:
            assert view.failure is None or view.failure.kind != "record_unreadable"


@pytest.mark.parametrize("how", ["read", "progress", "header"])
async def test_a_look_up_of_many_shows_all_but_the_row_that_can_not_be_read(queue: ServiceHarness, how: str) -> None:
    await end(queue)
    spoil(queue, how)
    check(await queue.service.get_jobs(IDS), "completed")
    (alone,) = await queue.service.get_jobs(["bad"])
    assert alone is not None
    assert alone.failure is not None


@pytest.mark.parametrize("how", ["read", "header"])
async def test_a_job_that_has_not_ended_is_shown_with_its_state_though_its_row_can_not_be_read(
    queue: ServiceHarness, how: str
) -> None:
    await queue.exchange(slots=8)
    spoil(queue, how)
    check(await queue.service.get_jobs(IDS), "processing")


async def test_a_disk_that_reads_nothing_is_an_error_and_no_answer(queue: ServiceHarness) -> None:
    await end(queue)
    assert isinstance(queue.journal, BrokenJournal)
    queue.journal.dead = True
    with pytest.raises(OSError, match="Input/output error"):
        await queue.service.get_jobs(IDS)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("how", ["read", "progress", "header"])
async def test_a_page_of_results_shows_all_but_the_row_that_can_not_be_read(
    queue: ServiceHarness, how: str, ordered: bool
) -> None:
    await end(queue)
    spoil(queue, how)
    reply = await queue.service.batches.results(ResultsCall("batch", ordered=ordered))
    check(list(reply.jobs), "completed")
    assert reply.is_last


@pytest.mark.parametrize("how", ["read", "progress", "header"])
async def test_a_page_of_dead_letters_shows_all_but_the_row_that_can_not_be_read(
    queue: ServiceHarness, how: str
) -> None:
    await end(queue, well=False)
    journal = queue.memory
    for seq, (_, progress) in list(journal._disk.states.items()):
        journal._disk.states[seq] = ("dead_letter", progress)
    spoil(queue, how)
    reply = await queue.service.dead_letters.find(DeadLettersCall())
    check(list(reversed(reply.jobs)), "dead_letter")


async def test_a_result_that_is_none_is_the_error_of_its_own_job_in_a_list_of_the_client() -> None:
    async with ClientHarness() as harness:
        adapter = await harness.client()
        ids = await adapter.submit_jobs([chat()] * 3)
        await harness.work()
        await adapter.wait_all(ids)
        disk = harness.queue.memory._disk
        disk.results[disk.seqs[ids[1]]] = b"\xc1 no result"
        found = await adapter.get_jobs(ids)
        assert [info and info.status for info in found] == ["completed"] * 3
        assert [info is not None and info.result is not None for info in found] == [True, False, True]
        assert found[1] is not None
        assert found[1].error is not None
        assert found[1].error.kind == "record_unreadable"


@pytest.mark.parametrize("how", ["read", "header"])
async def test_a_submit_of_a_job_whose_row_can_not_be_read_fails_alone(queue: ServiceHarness, how: str) -> None:
    """Submits that may be known are looked up together, and come from many clients."""
    spoil(queue, how)
    bad = SubmitGroup([submission("bad")], maybe_known=True)
    others = [SubmitGroup([submission(f"new-{number}")], maybe_known=True) for number in range(5)]
    calls = [queue.service.submit([each]) for each in (*others[:2], bad, *others[2:])]
    replies = await asyncio.gather(*calls)
    (refusal,) = replies.pop(2)
    assert replies == [[None]] * 5
    assert refusal is not None
    assert refusal.kind == "record_unreadable"
    assert queue.service._engine.core.live.keys() >= {f"new-{number}" for number in range(5)}


async def test_submits_that_can_be_looked_up_only_one_by_one_are_accepted(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = queue.journal.weights

    def read_one(ids: Iterable[str], **more: bool) -> dict[str, int]:
        if len(ids := list(ids)) > 1:
            raise sqlite3.OperationalError("disk I/O error")
        return read(ids, **more)

    monkeypatch.setattr(queue.journal, "weights", read_one)
    groups = [SubmitGroup([submission(f"new-{number}")], maybe_known=True) for number in range(5)]
    assert await asyncio.gather(*(queue.service.submit([each]) for each in groups)) == [[None]] * 5
    assert queue.service._engine.core.live.keys() >= {f"new-{number}" for number in range(5)}


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_large_row_that_can_not_be_read_hides_none_of_those_behind_it(
    queue: ServiceHarness, ordered: bool
) -> None:
    """What is read of a large row is read alone, and the row's error is not taken for one of the disk."""
    await end(queue)
    spoil(queue, "read")
    for seq in queue.memory._disk.results:
        queue.memory._disk.results[seq] = b'"' + b"x" * 5_000_000 + b'"'
    shown: list[JobView] = []
    while len(shown) < len(IDS):
        reply = await queue.service.batches.results(ResultsCall("batch", len(shown), ordered=ordered))
        shown += reply.jobs
    assert [view.id for view in shown] == IDS
    assert [view.failure is not None and view.failure.kind for view in shown].count("record_unreadable") == 1


async def test_a_job_whose_row_can_not_be_read_is_hidden_too_while_its_batch_is_dropped() -> None:
    queue = ServiceHarness(journal=BrokenJournal())
    core = queue.service._engine.core
    core.policy = replace(core.policy, most_at_once=1)
    queue.service._ticker.close()
    jobs = [submission(job_id, header(batch_id="batch")) for job_id in IDS]
    await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("batch", is_open=True))])
    spoil(queue, "read")
    check(await queue.service.get_jobs(IDS), "blocked")
    queue.service.batches._steer(BatchCall("batch", "drop"))
    assert core.live.keys() == set(IDS[1:])
    assert await queue.service.get_jobs(IDS) == [None] * len(IDS)
    await queue.service.close()
