"""Dead letters that can't be read or decoded: they are deleted like others, and are not redriven."""

from __future__ import annotations

import itertools
import math
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine.effects import Rows
from aiqueue.engine.records import decode_progress, encode_progress
from aiqueue.errors import RecordUnreadable
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import BatchSpec, DeadLettersCall, SubmitGroup
from aiqueue.testing.jobs import chat, completed, failed, group, header, retryable, submission
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


@pytest.mark.parametrize("progress", [b"", b"\xc1 no progress", b"\x81\x00\xff"])
async def test_a_redrive_of_a_dead_letter_whose_progress_can_not_be_decoded_is_refused(
    queue: ServiceHarness, progress: bytes
) -> None:
    await dead_letters(queue)
    disk = queue.memory._disk
    disk.states[disk.seqs["bad"]] = ("dead_letter", progress)
    again = submission("again", replace(header(), redriven_from="bad"))
    assert [reply and reply.kind for reply in await queue.service.submit([group(again)])] == ["dead_letter_not_found"]
    assert await queue.submit("other") is None, "the queue goes on"


@pytest.mark.parametrize(
    ("how", "finished_at"),
    [*itertools.product(["redrive", "retry"], [math.nan, math.inf, -1.0, 0.0]), ("retry", None)],
)
async def test_a_dead_letter_whose_end_is_no_time_is_kept_from_its_successors_start(
    tmp_path: Path, how: str, finished_at: float | None
) -> None:
    journal = SqliteJournal(tmp_path / "queue.db")
    queue = ServiceHarness(journal=journal)
    one = header(batch_id="b", max_retries=0)
    assert await queue.service.submit([SubmitGroup([submission("bad", one)], batch=BatchSpec("b"))]) == [None]
    await queue.exchange(*map(failed, await queue.claim()), slots=0)
    seq, _, _, state, progress, *_ = journal.jobs(["bad"])["bad"]
    damaged = replace(decode_progress(progress), finished_at=finished_at or 0.0)
    row = b"" if finished_at is None else encode_progress(damaged)
    journal.commit(Rows(states=[(seq, state, row, 5.0)]))
    if how == "redrive":
        again = submission("again", replace(header(), redriven_from="bad"))
        assert await queue.service.submit([group(again)]) == [None]
    else:
        assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == 1
    ended = journal.ended(after=(0.0, 0), before=math.inf, limit=9)
    assert [(row.id, row.at) for row in ended] == [("bad", queue.clock.now())]
    await queue.service.close()


@pytest.mark.parametrize("finished_at", [math.nan, math.inf, -1.0, 0.0])
async def test_a_deleted_dead_letter_whose_end_is_no_time_goes_when_no_job_needs_it(
    tmp_path: Path, finished_at: float
) -> None:
    journal = SqliteJournal(tmp_path / "queue.db")
    queue = ServiceHarness(journal=journal)
    queue.service._ticker.close()  # retention would take it
    await dead_letters(queue)
    seq, _, _, state, progress, *_ = journal.jobs(["bad"])["bad"]
    journal.commit(
        Rows(states=[(seq, state, encode_progress(replace(decode_progress(progress), finished_at=finished_at)), 5.0)])
    )
    queue.service.dead_letters._is_needed = lambda job_id: job_id == "bad"
    assert await queue.service.dead_letters.delete(["bad"]) == ["bad"]
    (first, *_) = journal.ended(after=(0.0, 0), before=math.inf, limit=9)
    assert (first.id, first.at) == ("bad", 1.0)
    await queue.service.close()


@pytest.mark.parametrize("job_id", ["bad", "second"])
@pytest.mark.parametrize("how", ["state", "row", "progress", "no progress"])
async def test_the_key_of_a_dead_letter_stays_when_it_can_not_be_read_how_its_work_went_on(
    job_id: str, how: str
) -> None:
    journal = BrokenJournal()
    queue = ServiceHarness(journal=journal)
    await dead_letters(queue)
    for repeated, again in (("bad", "second"), ("second", "third")):
        made = submission(again, replace(header(max_retries=0), redriven_from=repeated, idempotency_key=again))
        assert await queue.service.submit([group(made)]) == [None]
        assert await queue.claim() == [again]
        await queue.exchange(completed(again) if again == "third" else failed(again, failure=retryable()), slots=0)
    if how == "state":
        journal.broken_states.add(job_id)
    elif how == "row":
        journal.broken.add(job_id)
    else:
        seq = journal._disk.seqs[job_id]
        journal._disk.states[seq] = ("dead_letter", b"" if how == "no progress" else b"\xc1 no progress")
    if job_id == "bad" and how in ("state", "row"):
        with pytest.raises(sqlite3.DatabaseError):
            await queue.service.dead_letters.delete(["bad"])
    else:
        assert await queue.service.dead_letters.delete(["bad"]) == ["bad"]
    journal.broken, journal.broken_states = set(), set()
    made = submission("new", replace(header(max_retries=0), idempotency_key="key of bad"))
    reply = await queue.service.submit_and_linger([group(made)], 0.0)
    assert reply.known == {0: "bad"}, "what completed runs again"
    await queue.service.close()
