"""``retry_failed``: each failed job runs once more, however often and whenever it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine import Exchange
from aiqueue.engine.commands import Retry
from aiqueue.errors import ValidationError
from aiqueue.protocol import BatchSpec, DeadLettersCall, Failure, Need, SubmitGroup
from aiqueue.testing.jobs import POOL, completed, failed, final, header, retryable, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


def batch(*ids: str, needs: dict[str, str] | None = None, **fields: object) -> SubmitGroup:
    """Return a batch called ``b``; ``needs``: what a job waits for."""
    jobs = [submission(job_id, replace(header(max_retries=0, batch_id="b"), index=at)) for at, job_id in enumerate(ids)]
    for job in jobs:
        if parent := (needs or {}).get(job.id):
            job.header.needs, job.header.on_error = (Need(parent),), "fail"
    return SubmitGroup(jobs, batch=replace(BatchSpec("b"), **fields))


async def fail(queue: ServiceHarness, *ids: str, failure: Failure | None = None) -> None:
    """Let a worker fail jobs that wait."""
    assert sorted(await queue.claim(len(ids))) == sorted(ids)
    await queue.exchange(*(failed(job_id, failure=failure or final()) for job_id in ids), slots=0)


async def ended_batch(queue: ServiceHarness, *ids: str, failure: Failure | None = None) -> None:
    """Submit a batch and let all of it fail."""
    assert await queue.service.submit([batch(*ids)]) == [None]
    await fail(queue, *ids, failure=failure)


def ask(queue: ServiceHarness, action: str = "retry_failed", token: str = "") -> asyncio.Task[object]:
    return asyncio.ensure_future(queue.service.batches.call(BatchCall("b", action, token=token)))


async def test_two_retries_at_once_are_one(queue: ServiceHarness) -> None:
    await ended_batch(queue, "a", "b", "c", "d")
    views = await asyncio.gather(*(queue.service.batches.call(BatchCall("b", "retry_failed")) for _ in range(2)))
    assert [view.changed for view in views] == [4, 4]
    claims = (await queue.exchange(slots=20)).claims
    assert len(claims) == 4
    await queue.exchange(*(completed(job.job_id) for job in claims), slots=0)
    (view, *_) = [await queue.service.batches.call(BatchCall("b"))]
    assert (view.ended, view.total, view.status) == ({"completed": 4}, 4, "completed")


async def test_the_same_call_sent_again_after_its_answer_was_lost_is_done_once(queue: ServiceHarness) -> None:
    await ended_batch(queue, "a")
    first = await queue.service.batches.call(BatchCall("b", "retry_failed", token="t"))
    (job,) = (await queue.exchange(slots=5)).claims
    await queue.exchange(failed(job.job_id, failure=final()), slots=0)
    again = await queue.service.batches.call(BatchCall("b", "retry_failed", token="t"))
    assert (first.changed, again.changed) == (1, 1)
    assert queue.ready() == 0
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed", token="u"))).changed == 1


async def test_a_caller_that_goes_away_leaves_no_half_retry(queue: ServiceHarness) -> None:
    await ended_batch(queue, "a", "b", "c")
    queue.service.batches.retries.at_once = 1
    queue.memory.hold()
    caller = ask(queue)
    await turns(3)
    caller.cancel()
    queue.memory.release()
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == 3
    assert len(await queue.claim(9)) == 3


async def test_a_repeat_of_a_retry_that_was_cancelled_does_not_undo_the_cancel(queue: ServiceHarness) -> None:
    """The repeat comes while the cancelled retry is still on its way to the disk."""
    await ended_batch(queue, "a", "b", "c")
    queue.service.batches.retries.at_once = 1
    queue.memory.hold()
    retry = ask(queue, token="t")
    assert await asyncio.to_thread(queue.memory.held.wait, 10)
    stop = ask(queue, "cancel")
    await turns(2)
    repeat = ask(queue, token="t")
    await turns(2)
    queue.memory.release()
    await asyncio.gather(retry, stop, repeat)
    assert (await queue.service.batches.call(BatchCall("b"))).status == "cancelled"
    assert queue.ready() == 0
    await ask(queue, token="t")
    assert queue.ready() == 0


async def test_a_repeat_of_a_retry_whose_caller_went_away_has_its_answer(queue: ServiceHarness) -> None:
    await ended_batch(queue, "a", "b")
    queue.memory.hold()
    caller = ask(queue, token="t")
    await turns(3)
    caller.cancel()
    queue.memory.release()
    await queue.service.batches.call(BatchCall("b", "retry_failed"))
    await fail(queue, *queue.service._engine.core.live)
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed", token="t"))).changed == 2
    assert queue.ready() == 0


@pytest.mark.parametrize("reason", ["cancel", "fail_fast"])
async def test_a_batch_stopped_between_two_parts_of_a_retry_stays_stopped(queue: ServiceHarness, reason: str) -> None:
    assert await queue.service.submit([batch("a", "b", "c", max_failed_ratio=0.9)]) == [None]
    await fail(queue, "a", "b", "c")
    queue.service.batches.retries.at_once = 1
    queue.memory.hold()
    retry = ask(queue)
    assert await asyncio.to_thread(queue.memory.held.wait, 10)  # the first part is on its way to the disk
    if reason == "cancel":
        stop = ask(queue, "cancel")
    else:
        queue.service._engine.core.groups.live["b"].spec.fail_fast = True  # as if it had been submitted so
        heir = next(iter(queue.service._engine.core.live))
        stop = asyncio.ensure_future(queue.exchange(slots=1))
        await turns(2)
        report = asyncio.ensure_future(queue.exchange(failed(heir, failure=final()), slots=0))
    await turns(2)
    queue.memory.release()
    await asyncio.gather(retry, stop, *([report] if reason == "fail_fast" else []))
    view = await queue.service.batches.call(BatchCall("b"))
    assert view.status == ("cancelled" if reason == "cancel" else "failed")
    assert (queue.ready(), sum(view.ended.values()), view.total) == (0, 3, 3)


async def test_a_parent_that_fails_while_its_graph_is_retried_still_stops_its_child(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's end falls between the look at the journal and the command."""
    await queue.submit("outside", max_retries=0)
    assert await queue.claim(1) == ["outside"]
    graph = batch("first", "second", needs={"second": "first"})
    graph.jobs[1].header.needs += (Need("outside"),)
    assert await queue.service.submit([graph]) == [None]
    assert await queue.claim(2) == ["first"]
    await queue.exchange(failed("first", failure=final()), slots=0)
    core, loop = queue.service._engine.core, asyncio.get_running_loop()

    def fail_outside() -> None:
        if "outside" in core.live:
            queue.service._apply(Exchange("worker-1", POOL, 0, [failed("outside", failure=final())]))

    def then_fail_outside(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*args: Any, **more: Any) -> Any:
            rows = read(*args, **more)
            loop.call_soon_threadsafe(fail_outside)
            return rows

        return reading

    monkeypatch.setattr(queue.journal, "jobs", then_fail_outside(queue.journal.jobs))
    assert (await queue.service.batches.call(BatchCall("b", "retry_failed"))).changed == 2
    (heir,) = await queue.claim(2)
    fail_outside()
    await queue.exchange(completed(heir), slots=0)
    view = await queue.service.batches.call(BatchCall("b"))
    assert (queue.ready(), view.ended) == (0, {"completed": 1, "failed": 1})


async def test_a_dead_letter_that_was_retried_is_none_any_more(queue: ServiceHarness) -> None:
    await ended_batch(queue, "a", "b", failure=retryable())
    letters = queue.service.dead_letters
    assert sorted(view.id for view in (await letters.find(DeadLettersCall())).jobs) == ["a", "b"]
    await queue.service.batches.call(BatchCall("b", "retry_failed"))
    assert ((await letters.find(DeadLettersCall())).jobs, await letters.count()) == ([], 0)
    view = await queue.view("a")
    assert (view.status, view.failure and view.failure.kind) == ("failed", "provider_server_error")
    (heir,) = await queue.claim(1)
    await queue.exchange(failed(heir), slots=0)
    assert [view.id for view in (await letters.find(DeadLettersCall())).jobs] == [heir]
    after = await queue.crashed()
    assert await after.service.dead_letters.count() == 1
    await after.service.close()


async def test_a_batch_that_is_being_stopped_is_not_retried(queue: ServiceHarness) -> None:
    assert await queue.service.submit([batch("a", "b")]) == [None]
    assert await queue.claim(1) == ["a"]
    await ask(queue, "cancel")
    with pytest.raises(ValidationError, match="stopping"):
        await ask(queue)


async def test_a_retry_of_a_graph_with_many_edges_takes_few_of_them_in_a_step(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"g{at}" for at in range(120)]
    sent = batch(*ids)
    for at, job in enumerate(sent.jobs[1:], 1):
        job.header.needs, job.header.on_error = tuple(map(Need, ids[:at])), "fail"
    assert await queue.service.submit([sent]) == [None]
    await fail(queue, "g0")
    await until(lambda: not queue.service._engine.core.live)
    retries, steps = queue.service.batches.retries, list[int]()

    def apply(command: Retry, real: Callable[..., Any] = retries._apply) -> Any:
        steps.append(sum(1 + len(job.header.needs) for job in command.jobs))
        return real(command)

    monkeypatch.setattr(retries, "_apply", apply)
    view = await queue.service.batches.call(BatchCall("b", "retry_failed"))
    assert (view.changed, sum(steps)) == (120, 120 + 120 * 119 / 2)
    assert max(steps) <= 1_000
    for _ in ids:  # each needs those before it: the order is kept over all steps
        (claim,) = (await queue.exchange(slots=5)).claims
        await queue.exchange(completed(claim.job_id), slots=0)
    assert (await queue.service.batches.call(BatchCall("b"))).ended == {"completed": 120}
