"""Jobs that need an ended one which can't be read or is large: to accept them takes its state alone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.protocol import BatchSpec, Need, Outcome, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, group, header, submission
from tests.tools.broken_journal import BrokenJournal
from tests.tools.measured_journal import MeasuredJournal
from tests.tools.service_harness import ServiceHarness

LARGE = b'{"text":"' + b"x" * 100_000 + b'"}'


def step(job_id: str, *needs: str, maybe_known: bool = False) -> SubmitGroup:
    """Return a batch of one job that needs others."""
    made = replace(header(batch_id=f"of {job_id}"), needs=tuple(map(Need, needs)), on_error="fail")
    batch = BatchSpec(f"of {job_id}", kind="graph")
    return SubmitGroup([submission(job_id, made)], maybe_known, batch)


async def with_ended(journal: BrokenJournal) -> ServiceHarness:
    """Return a queue in which ``good`` and ``bad`` have ended."""
    queue = ServiceHarness(journal=journal)
    await queue.submit("good", "bad", "waits")
    await queue.claim(2)
    await queue.exchange(completed("good"), completed("bad"), slots=0)
    return queue


@pytest.mark.parametrize("maybe_known", [False, True])
async def test_jobs_are_accepted_that_need_one_whose_row_can_not_be_read(maybe_known: bool) -> None:
    journal = BrokenJournal()
    queue = await with_ended(journal)
    journal.broken = {"bad"}
    groups = [group("alone"), step("one", "good", maybe_known=maybe_known), step("two", "bad", maybe_known=maybe_known)]
    assert await queue.service.submit(groups) == [None] * 3
    await queue.service.close()


@pytest.mark.parametrize("maybe_known", [False, True])
async def test_a_submit_that_needs_a_job_whose_state_can_not_be_read_fails_alone(maybe_known: bool) -> None:
    journal = BrokenJournal()
    queue = await with_ended(journal)
    journal.broken_states = {"bad"}
    groups = [group("alone"), step("two", "bad", maybe_known=maybe_known), step("one", "good", maybe_known=maybe_known)]
    alone, two, one = await queue.service.submit(groups)
    assert alone is one is None, "accepted, and told so"
    assert two is not None
    assert two.kind == "record_unreadable"
    assert queue.service._engine.core.live.keys() == {"waits", "alone", "one"}
    journal.broken_states = set()
    again = [replace(each, maybe_known=True) for each in groups]  # as a client does after an error
    assert await queue.service.submit(again) == [None] * 3
    assert queue.service._engine.core.live.keys() == {"waits", "alone", "one", "two"}
    await queue.service.close()


async def test_a_batch_is_retried_of_which_a_job_needs_one_whose_row_can_not_be_read() -> None:
    journal = BrokenJournal()
    queue = await with_ended(journal)
    made = replace(header(batch_id="b", max_retries=0))
    jobs = [
        submission("a", replace(made, index=0)),
        submission("b", replace(made, index=1, needs=(Need("bad"),), on_error="fail")),
        submission("c", replace(made, index=2)),
    ]
    assert await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("b", kind="graph"))]) == [None]
    assert await queue.claim(8) == ["waits", "a", "b", "c"]
    await queue.exchange(*(failed(job_id, failure=final()) for job_id in "abc"), slots=0)
    journal.broken = {"bad"}
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == 3
    await queue.service.close()


@pytest.mark.parametrize("maybe_known", [False, True])
async def test_to_accept_a_fan_in_reads_none_of_the_results_that_it_needs(maybe_known: bool) -> None:
    journal = MeasuredJournal()
    queue = ServiceHarness(journal=journal)
    ids = [f"job-{number}" for number in range(20)]
    await queue.submit(*ids)
    await queue.exchange(slots=20)
    await queue.exchange(*(Outcome(job_id, 1, LARGE) for job_id in ids), slots=0)
    journal.most = 0
    assert await queue.service.submit([step("all", *ids, maybe_known=maybe_known)]) == [None]
    assert journal.most < len(LARGE)
    await queue.service.close()
