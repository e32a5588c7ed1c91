"""Dead letters that can't be read or decoded: they are deleted like others, and are not redriven."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from aiqueue.engine.effects import Rows
from aiqueue.errors import RecordUnreadable
from aiqueue.protocol import DeadLettersCall, SubmitGroup
from aiqueue.testing.jobs import chat, failed, header, retryable, submission
from tests.tools.broken_journal import BrokenJournal
from tests.tools.client_harness import ClientHarness
from tests.tools.service_harness import ServiceHarness

HEADERS = [b"", b"\xc1 no header", b"\x9a\xa2\xff\xfe no text"]


async def dead_letters(queue: ServiceHarness) -> None:
    """Let two jobs that were submitted under keys become dead letters."""
    for job_id in ("bad", "good"):
        made = submission(job_id, replace(header(max_retries=0), idempotency_key=f"key of {job_id}"))
        assert await queue.service.submit([SubmitGroup([made])]) == [None]
    claimed = await queue.claim(8)
    await queue.exchange(*(failed(job_id, failure=retryable()) for job_id in claimed), slots=0)


@pytest.mark.parametrize("body", HEADERS)
@pytest.mark.parametrize("ids", [["bad"], ["bad", "good"], ["good", "bad"]])
async def test_a_dead_letter_whose_header_can_not_be_decoded_is_deleted(
    queue: ServiceHarness, ids: list[str], body: bytes
) -> None:
    await dead_letters(queue)
    disk = queue.memory._disk
    disk.jobs[disk.seqs["bad"]] = disk.jobs[disk.seqs["bad"]]._replace(header=body)
    assert sorted(await queue.service.dead_letters.delete(ids)) == sorted(ids)
    left = [view.id for view in (await queue.service.dead_letters.find(DeadLettersCall())).jobs]
    assert left == [job_id for job_id in ("good", "bad") if job_id not in ids]
    assert queue.journal.keys(["key of good"]).keys() == ({"key of good"} - {f"key of {job_id}" for job_id in ids})


@pytest.mark.parametrize("how", ["progress", "row"])
async def test_a_dead_letter_that_needs_no_decoding_is_deleted_beside_one_that_can_not_be_read(how: str) -> None:
    queue = ServiceHarness(journal=BrokenJournal())
    await dead_letters(queue)
    assert isinstance(queue.journal, BrokenJournal)
    disk = queue.journal._disk
    if how == "row":
        queue.journal.broken = {"bad"}
    else:
        disk.states[disk.seqs["bad"]] = ("dead_letter", b"\xc1 no progress")
        queue.service.dead_letters._is_needed = lambda job_id: job_id == "bad"
    deleted = await queue.service.dead_letters.delete(["bad", "good"])
    assert "good" in deleted
    await queue.service.close()


async def test_dead_letters_of_which_the_attempts_of_one_can_not_be_read_are_listed() -> None:
    queue = ServiceHarness(journal=BrokenJournal())
    await dead_letters(queue)
    assert isinstance(queue.journal, BrokenJournal)
    queue.memory.commit(Rows(attempts=[(seq, 1, b"before") for seq in queue.memory._disk.seqs.values()]))
    queue.journal.broken_attempts = {"bad"}
    found = (await queue.service.dead_letters.find(DeadLettersCall())).jobs
    assert {view.id: view.attempts for view in found} == {"good": [b"before"], "bad": []}
    await queue.service.close()


@pytest.mark.parametrize("body", HEADERS)
async def test_a_dead_letter_that_can_not_be_decoded_is_not_redriven(body: bytes) -> None:
    async with ClientHarness() as harness:
        adapter = await harness.client()
        good, bad = await adapter.submit_jobs([chat()] * 2, {"max_retries": 0})
        await harness.queue.claim(8)
        outcomes = [failed(job_id, failure=retryable()) for job_id in (good, bad)]
        await harness.queue.exchange(*outcomes, slots=0)
        disk = harness.queue.memory._disk
        disk.jobs[disk.seqs[bad]] = disk.jobs[disk.seqs[bad]]._replace(header=body)
        with pytest.raises(RecordUnreadable, match=bad):
            await adapter.dead_letters.redrive([good, bad])
        assert not harness.queue.service._engine.core.live, "nothing is submitted"
        assert len(await adapter.dead_letters.redrive([good])) == 1
