"""``retry_failed`` of a batch of which one job can't be read or decoded: it stays failed, the others run again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, ResultsCall
from aiqueue.engine import Exchange
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import POOL, completed, failed, final, header, retryable, submission
from tests.tools.broken_journal import BrokenJournal
from tests.tools.service_harness import ServiceHarness

IDS = ["a", "bad", "c", "d"]
HOWS = ["read", "payload", "header", "text", "progress"]


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    """Return a queue with a batch whose jobs a worker has."""
    made = ServiceHarness(journal=BrokenJournal())
    jobs = [submission(name, replace(header(batch_id="b", max_retries=0), index=at)) for at, name in enumerate(IDS)]
    assert await made.service.submit([SubmitGroup(jobs, batch=BatchSpec("b"))]) == [None]
    assert await made.claim(8) == IDS
    yield made
    await made.service.close()


def spoil(queue: ServiceHarness, how: str, job_id: str = "bad") -> None:
    """Let the row of a job be unreadable, or no row of ours."""
    journal = queue.journal
    assert isinstance(journal, BrokenJournal)
    disk = journal._disk
    seq = disk.seqs[job_id]
    if how == "read":
        journal.broken = {job_id}
    elif how == "payload":
        journal.broken_payloads = {job_id}
    elif how == "progress":
        disk.states[seq] = (disk.states[seq][0], b"\xc1 no progress")
    else:
        bodies = {"header": b"\xc1 no header", "text": b"\x9a\xa2\xff\xfe no text"}
        disk.jobs[seq] = disk.jobs[seq]._replace(header=bodies[how])


async def retry(queue: ServiceHarness) -> int:
    return (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed


@pytest.mark.parametrize("failure", [final(), retryable()], ids=["failed", "dead_letter"])
@pytest.mark.parametrize("how", HOWS)
async def test_a_job_that_can_not_be_read_stays_failed_and_the_others_are_retried(
    queue: ServiceHarness, how: str, failure: object
) -> None:
    await queue.exchange(*(failed(job_id, failure=failure) for job_id in IDS), slots=0)
    before = (await queue.view("bad")).status
    spoil(queue, how)
    assert await retry(queue) == 3
    live = queue.service._engine.core.live
    assert {(job.type, job.batch_id) for job in live.values()} == {("chat_completion", "b")}
    assert len(live) == 3
    while heirs := queue.service._apply(Exchange("worker-1", POOL, 8, []))[0].claims:  # one at first, at a gate
        await queue.exchange(*(completed(job.id) for job in heirs), slots=0)
    view = await queue.service.batches.call(BatchCall("b"))
    assert (view.ended, view.waiting, view.total) == ({"completed": 3, before: 1}, 0, 4)
    assert (await queue.view("bad")).status == before
    assert await retry(queue) == 0


@pytest.mark.parametrize("how", ["header", "text"])
async def test_a_job_whose_successor_can_not_be_decoded_does_not_get_another(queue: ServiceHarness, how: str) -> None:
    """Whose place the successor has is unknown, and it may run or have completed."""
    await queue.exchange(*(failed(job_id, failure=final()) for job_id in IDS), slots=0)
    assert await retry(queue) == 4
    first, *others = await queue.claim(8)
    await queue.exchange(completed(first), *(failed(job_id, failure=final()) for job_id in others), slots=0)
    spoil(queue, how, first)
    page = await queue.service.batches.results(ResultsCall("b", ordered=True))
    assert [job.id for job in page.jobs] == ["a", *others]
    assert await retry(queue) == 3
    heirs = await queue.claim(8)
    await queue.exchange(*(completed(job_id) for job_id in heirs), slots=0)
    view = await queue.service.batches.call(BatchCall("b"))
    assert (view.ended, view.waiting) == ({"completed": 4}, 0)


async def test_a_disk_that_reads_nothing_fails_the_retry_and_leaves_no_job_out(queue: ServiceHarness) -> None:
    await queue.exchange(*(failed(job_id, failure=final()) for job_id in IDS), slots=0)
    assert isinstance(queue.journal, BrokenJournal)
    queue.journal.dead = True
    with pytest.raises(OSError, match="Input/output error"):
        await retry(queue)
    queue.journal.dead = False
    assert await retry(queue) == 4
