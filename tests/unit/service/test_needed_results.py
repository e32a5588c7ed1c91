"""A step whose policy is to fail never runs without what it needs: it is refused or fails with a sentence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.config import RetentionConfig
from aiqueue.engine.effects import Effects, Rows
from aiqueue.journal.base import NO_LIMIT, StoredJob
from aiqueue.protocol import BatchSpec, JobView, Need, Submission, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, header, settings, submission
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until


def step(job_id: str, needs: str, on_error: str = "fail") -> Submission:
    return submission(job_id, replace(header(batch_id="b"), needs=(Need(needs, ("in",)),), on_error=on_error))


def batch(*jobs: Submission, maybe_known: bool = False) -> SubmitGroup:
    return SubmitGroup(list(jobs), maybe_known, BatchSpec("b", kind="graph"))


async def delete(queue: ServiceHarness, *ids: str) -> None:
    gone = [job.seq for job in queue.journal.jobs(ids).values()]
    await queue.service._commits.append(Effects(rows=Rows(deletes=gone)))


async def successors(queue: ServiceHarness) -> list[JobView]:
    """Return the batch's jobs that took the places of others."""
    rows = [row for row in queue.memory._disk.jobs.values() if row.id not in ("parent", "step", "other")]
    return [await queue.view(row.id) for row in rows]


@pytest.mark.parametrize("on_error", ["fail", "include", "skip"])
async def test_a_step_that_is_retried_when_its_input_was_deleted_fails_with_a_sentence_unless_it_goes_on_after_errors(
    queue: ServiceHarness, on_error: str
) -> None:
    parent = submission("parent", header(batch_id="b"))
    assert await queue.service.submit([batch(parent, step("step", "parent", on_error))]) == [None]
    assert await queue.claim() == ["parent"]
    await queue.exchange(completed("parent"), slots=0)
    assert await queue.claim() == ["step"]
    await queue.exchange(failed("step", failure=final()), slots=0)
    await delete(queue, "parent")
    view = await queue.service.batches.call(BatchCall("b", "retry_failed"))
    assert view.changed == 1
    (again,) = await successors(queue)
    if on_error != "fail":
        (claim,) = (await queue.exchange(slots=1)).claims
        assert claim.inputs is not None
        assert [given.status for given in claim.inputs] == ["gone"]
        return
    assert (again.status, view.status, queue.ready()) == ("failed", "failed", 0)
    assert again.failure is not None
    assert (again.failure.kind, again.failure.message) == (
        "dependency_failed",
        "Dependency failed: the result of job parent is not kept any more, and this job needs it",
    )


async def test_a_retry_runs_what_has_its_inputs_and_fails_what_has_none(queue: ServiceHarness) -> None:
    parents = [submission(name, header(batch_id="b")) for name in ("parent", "other")]
    steps = [step("step", "parent"), step("step-2", "other"), step("step-3", "step")]
    assert await queue.service.submit([batch(*parents, *steps)]) == [None]
    for job_id in await queue.claim(2):
        await queue.exchange(completed(job_id), slots=0)
    for job_id in await queue.claim(2):
        await queue.exchange(failed(job_id, failure=final()), slots=0)
    await delete(queue, "parent")
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == 3
    (claim,) = (await queue.exchange(slots=5)).claims
    assert claim.inputs is not None
    assert [given.status for given in claim.inputs] == ["completed"]
    await queue.exchange(completed(claim.job_id), slots=0)
    found = await queue.service.batches.call(BatchCall("b"))
    assert (found.ended, queue.ready()) == ({"completed": 3, "failed": 2}, 0)


async def test_a_step_whose_input_is_missing_from_the_journal_when_it_is_claimed_fails_and_its_worker_goes_on(
    queue: ServiceHarness,
) -> None:
    parent = submission("parent", header(batch_id="b"))
    assert await queue.service.submit([batch(parent, step("step", "parent"))]) == [None]
    assert await queue.claim() == ["parent"]
    await queue.exchange(completed("parent"), slots=0)
    await delete(queue, "parent")  # which nothing but a fault would do
    await queue.submit("after")
    claims = (await queue.exchange(slots=2)).claims
    assert [claim.job_id for claim in claims] == ["after"]
    view = await queue.view("step")
    assert view.failure is not None
    assert (view.status, view.failure.kind) == ("failed", "dependency_failed")


class Racing(MemoryJournal):
    """A journal in which retention makes a pass behind each read of ``parent``, before the read's answer arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: ServiceHarness | None = None
        self.raced = 0

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        found = super().jobs(ids, with_payload=with_payload, with_result=with_result, limit=limit)
        self._race(found)
        return found

    def states(self, ids: Any) -> dict[str, str]:
        found = {job_id: job.state for job_id, job in super().jobs(ids).items()}
        self._race(found)
        return found

    def _race(self, found: Any) -> None:
        if self.queue is not None and "parent" in found:
            self.raced += 1
            asyncio.run_coroutine_threadsafe(self.queue.forget_old(), self.loop).result(10.0)

    def begin(self, queue: ServiceHarness) -> None:
        """Race from now on."""
        self.queue, self.loop = queue, asyncio.get_running_loop()


@pytest.mark.parametrize("way", ["submit", "submit again", "retry"])
async def test_retention_that_runs_while_an_input_is_looked_up_leaves_it(way: str) -> None:
    journal = Racing()
    queue = ServiceHarness(settings(), journal)
    queue.service._retention._next_pass_at = math.inf  # none but those that race
    parent = submission("parent", header(batch_id="b" if way == "retry" else ""))
    first = batch(parent, step("step", "parent")) if way == "retry" else SubmitGroup([parent])
    assert await queue.service.submit([first]) == [None]
    assert await queue.claim() == ["parent"]
    await queue.exchange(completed("parent"), slots=0)
    queue.clock.advance(25 * 3_600.0)
    if way == "retry":
        assert await queue.claim() == ["step"]
        await queue.exchange(failed("step", failure=final()), slots=0)
        journal.begin(queue)
        await queue.service.batches.call(BatchCall("b", "retry_failed"))
    else:
        journal.begin(queue)
        assert await queue.service.submit([batch(step("step", "parent"), maybe_known=way != "submit")]) == [None]
    assert journal.raced
    journal.queue = None
    await until(queue.ready)
    (claim,) = (await queue.exchange(slots=1)).claims
    assert claim.inputs is not None
    assert [given.status for given in claim.inputs] == ["completed"]
    await queue.service.close()


async def test_a_submit_that_comes_while_its_input_is_being_deleted_is_refused_with_a_sentence() -> None:
    journal = MemoryJournal()
    queue = ServiceHarness(settings().model_copy(update={"retention": RetentionConfig(max_jobs=0)}), journal)
    await queue.submit("parent")
    assert await queue.claim() == ["parent"]
    await queue.exchange(completed("parent"), slots=0)
    journal.hold()
    queue.service._retention.tick()
    await until(journal.held.is_set)
    again = [asyncio.create_task(queue.service.submit([batch(step("step", "parent"), maybe_known=True)]))]
    await until(lambda: queue.service._intake._rounds._running)
    journal.release()
    ((refusal,),) = await asyncio.gather(*again)
    assert refusal is not None
    assert refusal.message == "needs job parent, which is not known"
    await queue.service.close()
