"""However large the rows: no read of the journal returns more than a portion of them, unless one row is larger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, ResultsCall
from aiqueue.call_size import MAX_CALL_BYTES, PART_BYTES
from aiqueue.engine.effects import Rows
from aiqueue.protocol import BatchSpec, DeadLettersCall, JobView, Need, Outcome, SubmitGroup, encode
from aiqueue.service.next_tries import NextTries
from aiqueue.testing.jobs import failed, final, header, retryable, submission
from tests.tools.measured_journal import MeasuredJournal
from tests.tools.service_harness import ServiceHarness

MIB = 2**20
SMALL = 100_000  # of rows of which nothing large is read
IDS = [f"job-{number:02}" for number in range(20)]
NEEDS = tuple(Need(f"{number:040}") for number in range(20_000))  # some 900 KB
LARGE = b'{"text":"' + b"x" * MIB + b'"}'


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    """Return a queue whose reads are measured."""
    made = ServiceHarness(journal=MeasuredJournal())
    yield made
    await made.service.close()


def measured(queue: ServiceHarness) -> MeasuredJournal:
    assert isinstance(queue.journal, MeasuredJournal)
    return queue.journal


def batch(payload: bytes = b"{}") -> SubmitGroup:
    made = [replace(header(batch_id="b", max_retries=0), index=index) for index in range(len(IDS))]
    return SubmitGroup(
        [submission(job_id, each, payload) for job_id, each in zip(IDS, made, strict=True)], batch=BatchSpec("b")
    )


async def submitted(queue: ServiceHarness) -> None:
    """Submit a batch and let a worker claim it."""
    assert await queue.service.submit([batch()]) == [None]
    assert await queue.claim(len(IDS)) == IDS


def enlarge(queue: ServiceHarness, **fields: bytes) -> None:
    """Let the rows of all jobs be large, as if they had been submitted so."""
    disk = queue.memory._disk
    for job_id in IDS:
        disk.jobs[disk.seqs[job_id]] = disk.jobs[disk.seqs[job_id]]._replace(**fields)


def widen(queue: ServiceHarness, **fields: object) -> None:
    """Let the headers of all jobs be large."""
    disk = queue.memory._disk
    for index, job_id in enumerate(IDS):
        wide = replace(header(batch_id="b", max_retries=0), index=index, **fields)
        disk.jobs[disk.seqs[job_id]] = disk.jobs[disk.seqs[job_id]]._replace(header=encode(wide))


async def end(queue: ServiceHarness, ids: Sequence[str] = (), *, result: bytes = LARGE) -> None:
    """Let jobs complete, and those that are named fail."""
    for job_id in IDS:
        bad = failed(job_id, failure=final())
        await queue.exchange(bad if job_id in ids else Outcome(job_id, 1, result), slots=0)
    measured(queue).most = 0


async def test_a_look_up_of_small_rows_reads_them_once(queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await submitted(queue)
    await end(queue, result=b'{"text":"x"}')
    with monkeypatch.context() as patched:
        patched.setattr(queue.journal, "weights", None)
        found = await queue.service.get_jobs(IDS)
    assert [view and view.status for view in found] == ["completed"] * len(IDS)


async def test_a_retry_reads_no_results_to_find_the_jobs_that_failed(queue: ServiceHarness) -> None:
    await submitted(queue)
    await end(queue, IDS[3:4])
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == 1
    assert measured(queue).most < SMALL


async def test_a_retry_of_large_jobs_goes_in_portions(queue: ServiceHarness) -> None:
    await submitted(queue)
    await end(queue, IDS)
    enlarge(queue, payload=LARGE)
    written: list[int] = []
    queue.memory.on_commit = lambda rows: written.append(sum(len(payload) for _, _, _, payload in rows.jobs))
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == len(IDS)
    assert sum(written) >= len(IDS) * MIB
    assert max(written) <= PART_BYTES
    assert measured(queue).most <= PART_BYTES


async def test_where_successors_with_large_headers_stand_is_read_in_portions(queue: ServiceHarness) -> None:
    await submitted(queue)
    await end(queue, IDS)
    widen(queue, metadata=LARGE)
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == len(IDS)
    for successor in await queue.claim(len(IDS)):
        await queue.exchange(failed(successor, failure=final()), slots=0)
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == len(IDS)
    await queue.service.batches.results(ResultsCall("b", ordered=True, with_live=True))
    assert measured(queue).most <= PART_BYTES


@pytest.mark.parametrize("large", ["payload", "result"])
async def test_a_list_that_is_sent_again_is_compared_in_portions_and_without_its_results(
    queue: ServiceHarness, large: str
) -> None:
    await submitted(queue)
    await end(queue, result=b"{}" if large == "payload" else LARGE)
    group = batch(LARGE if large == "payload" else b"{}")
    enlarge(queue, payload=group.jobs[0].payload)
    assert await queue.service.submit([replace(group, maybe_known=True)]) == [None]
    assert measured(queue).most <= (PART_BYTES if large == "payload" else SMALL)


async def pages(queue: ServiceHarness, call: ResultsCall) -> list[list[JobView]]:
    found: list[list[JobView]] = []
    while True:
        reply = await queue.service.batches.results(call)
        found.append(list(reply.jobs))
        assert len(encode(reply)) <= MAX_CALL_BYTES
        if reply.is_last:
            return found
        call = replace(call, after=reply.after)


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_page_reads_the_results_that_it_gives_and_no_others(queue: ServiceHarness, ordered: bool) -> None:
    await submitted(queue)
    await end(queue)
    found = await pages(queue, ResultsCall("b", ordered=ordered))
    assert [view.id for page in found for view in page] == IDS
    assert {view.result for page in found for view in page} == {LARGE}
    assert measured(queue).most <= 4 * MIB


async def test_a_result_that_is_larger_than_a_page_is_a_page_of_its_own(queue: ServiceHarness) -> None:
    await submitted(queue)
    huge = b'"' + b"x" * (6 * MIB) + b'"'
    await end(queue, result=huge)
    assert [len(page) for page in await pages(queue, ResultsCall("b"))] == [1] * len(IDS)
    assert measured(queue).most < 7 * MIB


@pytest.mark.parametrize("with_live", [False, True])
async def test_a_page_counts_what_its_jobs_need_and_their_metadata(queue: ServiceHarness, with_live: bool) -> None:
    await submitted(queue)
    if not with_live:
        await end(queue, result=b"{}")
    widen(queue, needs=NEEDS)
    found = await pages(queue, ResultsCall("b", ordered=True, with_live=with_live))
    assert [view.id for page in found for view in page] == IDS
    assert max(len(encode(page)) for page in found) <= 4 * MIB
    assert measured(queue).most <= 4 * MIB


async def test_to_delete_jobs_that_are_no_dead_letters_reads_none_of_their_results(queue: ServiceHarness) -> None:
    await submitted(queue)
    await end(queue)
    assert await queue.service.dead_letters.delete(IDS) == []
    assert measured(queue).most < SMALL


async def dead(queue: ServiceHarness) -> list[int]:
    """Let all jobs become dead letters; return their seqs."""
    jobs = [submission(job_id, header(max_retries=0)) for job_id in IDS]
    assert await queue.service.submit([SubmitGroup([job]) for job in jobs]) == [None] * len(IDS)
    assert await queue.claim(len(IDS)) == IDS
    for job_id in IDS:
        await queue.exchange(failed(job_id, failure=retryable()), slots=0)
    assert set(await queue.service.batches.states(IDS)) == {"dead_letter"}
    measured(queue).most = 0
    return [queue.memory._disk.seqs[job_id] for job_id in IDS]


async def listed(queue: ServiceHarness) -> list[list[JobView]]:
    """Return all pages of dead letters."""
    found: list[list[JobView]] = []
    before = 2**62
    while before:
        reply = await queue.service.dead_letters.find(DeadLettersCall(limit=1_000, before_seq=before))
        found.append(list(reply.jobs))
        before = reply.before_seq
    return found


@pytest.mark.parametrize("fields", [{"metadata": LARGE}, {"needs": NEEDS}], ids=["metadata", "needs"])
async def test_dead_letters_with_large_headers_are_listed_and_deleted_in_portions(
    queue: ServiceHarness, fields: dict[str, object]
) -> None:
    await dead(queue)
    widen(queue, **fields)
    found = await listed(queue)
    assert [view.id for page in found for view in page] == IDS[::-1]
    assert max(len(encode(page)) for page in found) <= PART_BYTES
    assert await queue.service.dead_letters.delete(IDS) == IDS
    assert measured(queue).most <= PART_BYTES


async def test_what_the_jobs_of_a_retry_repeat_is_read_in_portions(queue: ServiceHarness) -> None:
    await dead(queue)
    widen(queue, metadata=LARGE)
    stored = queue.memory.jobs(IDS)
    again = [
        job._replace(id=f"again {job_id}", header=encode(replace(header(), redriven_from=job_id)))
        for job_id, job in stored.items()
    ]
    measured(queue).most = 0
    await NextTries(queue.journal, queue.service._commits).tried_again(again)
    assert 0 < measured(queue).most <= PART_BYTES


async def test_a_page_of_dead_letters_counts_their_attempts(queue: ServiceHarness) -> None:
    seqs = await dead(queue)
    queue.memory.commit(Rows(attempts=[(seq, attempt, LARGE) for seq in seqs for attempt in (1, 2)]))
    found = await listed(queue)
    assert [view.id for page in found for view in page] == IDS[::-1]
    assert {len(view.attempts) for page in found for view in page} == {2}
    assert max(len(encode(page)) for page in found) <= PART_BYTES
    assert measured(queue).most <= PART_BYTES


async def test_a_look_up_of_many_counts_their_attempts(queue: ServiceHarness) -> None:
    seqs = await dead(queue)
    for seq in seqs:
        state, progress = queue.memory._disk.states[seq]
        several = msgspec.msgpack.decode(progress)
        several[0] = 3  # attempts
        queue.memory._disk.states[seq] = state, encode(several)
    queue.memory.commit(Rows(attempts=[(seq, attempt, LARGE) for seq in seqs for attempt in (1, 2)]))
    left = IDS
    while left:
        views = await queue.service.get_jobs(left)
        assert views
        assert all(view is not None and len(view.attempts) == 2 for view in views)
        assert len(encode(views)) <= PART_BYTES
        left = left[len(views) :]
    assert measured(queue).most <= PART_BYTES


async def test_while_a_batch_is_dropped_no_results_of_other_jobs_are_read_to_tell_them_from_its_own(
    queue: ServiceHarness,
) -> None:
    await submitted(queue)
    await end(queue)
    many = [submission(f"open-{number}", header(batch_id="open")) for number in range(2_500)]
    assert await queue.service.submit([SubmitGroup(many, batch=BatchSpec("open", is_open=True))]) == [None]
    queue.service.batches._steer(BatchCall("open", "drop"))
    queue.service._ticker.close()
    assert queue.service._drops.under_way
    assert await queue.service.batches.states(IDS) == ["completed"] * len(IDS)
    again = batch()
    again.maybe_known = True
    assert await queue.service.submit([again]) == [None]
    assert measured(queue).most < SMALL
