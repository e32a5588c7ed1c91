"""Pages of results after a retry."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, ResultsCall
from aiqueue.engine.effects import Effects, Rows
from aiqueue.journal.base import StoredJob
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, header, submission
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.service_harness import ServiceHarness

JOBS = 30


async def test_a_page_after_a_retry_reads_its_own_jobs_and_each_successors_place_once(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submission(f"job-{n}", replace(header(max_retries=0, batch_id="b"), index=n)) for n in range(JOBS)]
    assert await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("b"))]) == [None]
    await queue.exchange(*(failed(job_id, failure=final()) for job_id in await queue.claim(JOBS)), slots=0)
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == JOBS
    successors = await queue.claim(JOBS)
    await queue.exchange(*(completed(job_id) for job_id in successors), slots=0)
    read, places = [0], [0]
    by_seq, headers = MemoryJournal.by_seq, MemoryJournal.headers

    def counting(journal: MemoryJournal, seqs: list[int], **more: bool) -> list[StoredJob]:
        read[0] += len(seqs)
        return by_seq(journal, seqs, **more)

    def counting_headers(journal: MemoryJournal, *, from_seq: int, count: int) -> list[tuple[int, bytes]]:
        places[0] += count
        return headers(journal, from_seq=from_seq, count=count)

    monkeypatch.setattr(MemoryJournal, "by_seq", counting)
    monkeypatch.setattr(MemoryJournal, "headers", counting_headers)
    shown: list[str] = []
    for at in range(0, JOBS, 5):
        page = await queue.service.batches.results(ResultsCall("b", at, 5))
        shown += [job.id for job in page.jobs]
    assert shown == successors
    assert read == [JOBS], "each page reads its own jobs"
    assert places == [JOBS], "where the successors are is read once"


async def test_a_page_whose_jobs_are_all_deleted_is_passed_without_a_wait(queue: ServiceHarness) -> None:
    jobs = [submission(f"job-{n}", replace(header(batch_id="b"), index=n)) for n in range(3)]
    assert await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("b"))]) == [None]
    await queue.claim(3)
    await queue.exchange(completed("job-0"), completed("job-1"), slots=0)
    await queue.service._commits.append(Effects(rows=Rows(deletes=[1, 2])))
    page = await queue.service.batches.results(ResultsCall("b", 0, 2, ordered=False, wait_s=3_600.0))
    assert (list(page.jobs), page.after, page.is_last) == ([], 2, False)
