"""Ids that were used before: the same job or batch again, or refused. Never a second one under the same name."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from aiqueue.engine.effects import Effects, Rows
from aiqueue.errors import QueueUnavailable
from aiqueue.ids import new_job_ids
from aiqueue.protocol import BatchSpec, Need, Refusal, Submission, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, header, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns


def batch(
    batch_id: str, *ids: str, known: bool = False, model: str = "model-a", needs: tuple[str, ...] = (), **fields: object
) -> SubmitGroup:
    """Return jobs as one batch."""
    of_batch = replace(header(model=model, batch_id=batch_id), needs=tuple(map(Need, needs)))
    of_batch.on_error = "fail" if needs else ""
    return SubmitGroup([submission(job_id, of_batch) for job_id in ids], known, replace(BatchSpec(batch_id), **fields))


async def send(queue: ServiceHarness, *groups: SubmitGroup) -> list[str]:
    """Submit groups in one call; return what refused each, empty where nothing did."""
    return [refusal.kind if refusal else "" for refusal in await queue.service.submit(groups)]


async def run(queue: ServiceHarness, *ids: str) -> None:
    """Let a worker complete jobs that wait."""
    assert sorted(await queue.claim(len(ids))) == sorted(ids)
    await queue.exchange(*map(completed, ids), slots=0)


@pytest.mark.parametrize("model", ["model-a", "model-b"])
async def test_a_batch_id_used_again_while_the_first_batch_runs_is_refused(queue: ServiceHarness, model: str) -> None:
    assert await send(queue, batch("nightly", "a1", "a2", "a3")) == [""]
    assert await queue.claim(1) == ["a1"]
    assert await send(queue, batch("nightly", "b1", "b2", model=model)) == ["duplicate_batch"]
    assert await send(queue, batch("nightly", "c1", is_open=True)) == ["duplicate_batch"]
    await queue.exchange(completed("a1"), slots=0)
    await run(queue, "a2", "a3")
    assert queue.service.stats().adapter.completed_jobs == 3


async def test_two_batches_of_one_id_in_one_call_are_one_and_a_refusal(queue: ServiceHarness) -> None:
    assert await send(queue, batch("nightly", "a"), batch("nightly", "b")) == ["", "duplicate_batch"]
    assert await queue.claim(5) == ["a"]


async def test_the_id_of_a_batch_that_has_ended_is_taken_also_after_a_restart(queue: ServiceHarness) -> None:
    await send(queue, batch("nightly", "a"))
    await run(queue, "a")
    assert await send(queue, batch("nightly", "b")) == ["duplicate_batch"]
    after = await queue.crashed()
    assert await send(after, batch("nightly", "c")) == ["duplicate_batch"]
    assert await send(after, batch("weekly", "d")) == [""]
    await after.service.close()


async def test_a_batch_that_opens_and_ends_while_its_id_is_looked_up_is_found(queue: ServiceHarness) -> None:
    await send(queue, batch("first", "bad"))
    assert await queue.claim(1) == ["bad"]
    await queue.exchange(failed("bad", failure=final()), slots=0)
    # The first of these ends in its own turn, since what it needs has failed.
    both = [batch("nightly", "a", needs=("bad",)), batch("nightly", "b", needs=("bad",))]
    answers = await asyncio.gather(*(send(queue, group) for group in both))
    assert sorted(answers) == [[""], ["duplicate_batch"]]


async def test_a_batch_sent_again_is_the_same_one_live_ended_and_after_a_restart(queue: ServiceHarness) -> None:
    again = batch("nightly", "a", "b", known=True)
    await send(queue, batch("nightly", "a", "b"))
    assert await send(queue, again) == [""]
    await run(queue, "a", "b")
    assert await send(queue, again) == [""]
    after = await queue.crashed()
    assert await send(after, again) == [""]
    assert after.ready() == 0
    await after.service.close()


async def test_jobs_outside_of_a_batch_can_not_count_as_its_own(queue: ServiceHarness) -> None:
    await send(queue, batch("nightly", "a"))
    refusal = await queue.submit("stranger", batch_id="nightly")
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "duplicate_batch"
    await run(queue, "a")
    assert await queue.submit("labelled", batch_id="label") is None
    assert await send(queue, batch("label", "b")) == ["duplicate_batch"]


async def test_a_first_call_that_comes_after_its_repeat_and_the_jobs_end_runs_nothing_again(
    queue: ServiceHarness,
) -> None:
    first = [submission("a"), submission("b")]
    await send(queue, SubmitGroup(first, maybe_known=True))
    await run(queue, "a", "b")
    assert await send(queue, SubmitGroup(first)) == [""]
    assert queue.ready() == 0


@pytest.mark.parametrize("in_a_batch", [False, True])
async def test_a_first_call_that_comes_after_its_repeat_and_a_restart_runs_nothing_again(
    queue: ServiceHarness, in_a_batch: bool
) -> None:
    one, two = new_job_ids(2)
    first = batch("b", one, two) if in_a_batch else SubmitGroup([submission(one), submission(two)])
    await send(queue, replace(first, maybe_known=True))
    await run(queue, one, two)
    after = await queue.crashed()
    answers = await asyncio.gather(send(after, first), after.submit("innocent"))
    assert answers == [[""], None]
    assert (after.service._faults.failed, await after.claim(5)) == ("", ["innocent"])
    await after.service.close()


async def test_a_first_call_under_an_id_that_its_caller_chose_ends_the_process_once_at_most(
    queue: ServiceHarness,
) -> None:
    """The caller should have marked it."""
    await queue.submit("chosen")
    await run(queue, "chosen")
    with pytest.raises(QueueUnavailable):
        await queue.submit("chosen")
    after = await queue.crashed()
    assert await after.submit("chosen") is None
    assert (after.service._faults.failed, after.ready()) == ("", 0)
    await after.service.close()


async def test_a_first_call_overtaken_while_its_batch_id_is_looked_up_runs_nothing_again(queue: ServiceHarness) -> None:
    queue.memory.hold()
    slow = asyncio.create_task(queue.submit("in the way"))
    await turns(2)
    first = asyncio.create_task(send(queue, batch("nightly", "a")))
    await turns(2)
    repeat = asyncio.create_task(send(queue, batch("nightly", "a", known=True)))
    await turns(2)
    queue.memory.release()
    await slow
    assert [await first, await repeat] == [[""], [""]]
    assert sorted(await queue.claim(5)) == ["a", "in the way"]


async def test_a_job_that_has_ended_is_found_though_it_comes_in_a_batch(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await run(queue, "a")
    job = Submission("a", header(batch_id="nightly"), b'{"type":"x"}')
    assert await send(queue, SubmitGroup([job], True, BatchSpec("nightly"))) == ["duplicate_job"]
    assert queue.ready() == 0


async def test_a_batch_sent_again_after_its_jobs_were_deleted_is_refused_and_the_queue_goes_on(
    queue: ServiceHarness,
) -> None:
    assert await send(queue, batch("batch-a1", "a1")) == [""]
    await run(queue, "a1")
    await queue.service._commits.append(Effects(rows=Rows(deletes=[1])))
    assert await send(queue, batch("batch-a1", "a1", known=True)) == ["duplicate_batch"]
    assert await queue.submit("b") is None
