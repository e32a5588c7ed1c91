"""Redrives beside retries of the batch and deletes: a dead letter runs again once, and not after it was deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.config import RetentionConfig
from aiqueue.errors import DeadLetterNotFound, IdempotencyConflict
from aiqueue.protocol import BatchSpec, Need, Refusal, SubmitGroup, SubmitReply
from aiqueue.testing.jobs import completed, failed, group, header, settings, submission
from tests.tools.client_harness import ClientHarness
from tests.unit.service.test_kept_long_enough import forget

HOUR_S = 3_600.0


@pytest.fixture
async def harness() -> AsyncIterator[ClientHarness]:
    kept_for_days = RetentionConfig(max_age_s=7 * 24 * HOUR_S)
    config = settings(retry_s=0.0, models=("model-a",)).model_copy(update={"retention": kept_for_days})
    async with ClientHarness(config) as made:
        await batch_of_dead_letters(made)
        yield made


async def batch_of_dead_letters(harness: ClientHarness, *names: str) -> None:
    """Let each job of a batch run out of attempts."""
    one = header(batch_id="b", max_retries=0)
    jobs = [submission(name, replace(one, index=at)) for at, name in enumerate(names or ("d",))]
    await harness.queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("b"))])
    await harness.queue.exchange(*map(failed, await harness.queue.claim(len(jobs))), slots=0)


async def retry(harness: ClientHarness) -> int:
    return (await harness.queue.service.batches.call(BatchCall("b", "retry_failed"))).changed


def live(harness: ClientHarness) -> list[str]:
    return list(harness.queue.service._engine.core.live)


def before_its_submit(harness: ClientHarness, what: Callable[[], Awaitable[object]]) -> None:
    """Let something happen between the look-up of a redrive and its submit."""
    real = harness.transport.submit

    async def submit(groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        await what()
        return await real(groups, linger_s=linger_s)

    harness.transport.submit = submit  # type: ignore[method-assign]


async def redrive(client: AsyncAIQueueAdapter, *job_ids: str) -> list[str]:
    return await client.dead_letters.redrive(job_ids or ["d"])


async def test_a_dead_letter_that_is_deleted_before_its_redrive_arrives_does_not_run_again(
    harness: ClientHarness,
) -> None:
    client = await harness.client()
    before_its_submit(harness, lambda: harness.queue.service.dead_letters.delete(["d"]))
    with pytest.raises(DeadLetterNotFound):
        await redrive(client)
    assert live(harness) == []


async def test_a_dead_letter_whose_batch_is_retried_before_its_redrive_arrives_runs_once(
    harness: ClientHarness,
) -> None:
    client = await harness.client()
    before_its_submit(harness, lambda: retry(harness))
    with pytest.raises(DeadLetterNotFound):
        await redrive(client)
    assert len(live(harness)) == 1


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_job_that_was_redriven_is_not_retried_with_its_batch(harness: ClientHarness, restarted: bool) -> None:
    client = await harness.client()
    (successor,) = await redrive(client)
    if restarted:
        await harness.crash()
    assert await retry(harness) == 0
    assert live(harness) == [successor]


async def test_a_job_whose_redrive_completed_is_not_retried_with_its_batch(harness: ClientHarness) -> None:
    client = await harness.client()
    (successor,) = await redrive(client)
    await harness.queue.claim(1)
    await harness.queue.exchange(completed(successor), slots=0)
    assert (await retry(harness), live(harness)) == (0, [])


async def test_a_redrive_that_is_sent_again_after_its_dead_letter_was_deleted_is_the_accepted_one(
    harness: ClientHarness,
) -> None:
    client = await harness.client()
    harness.transport.lose_answers("submit")
    deleting = iter([harness.queue.service.dead_letters.delete])  # once: before the call is sent again
    real = harness.transport._call

    async def call(method: str, answer: Awaitable[object]) -> object:
        try:
            return await real(method, answer)
        finally:
            if method == "submit" and (delete := next(deleting, None)):
                await delete(["d"])

    harness.transport._call = call  # type: ignore[assignment,method-assign]
    assert await redrive(client) == live(harness)
    gone = await client.get_job_status("d")
    assert gone is not None
    assert (gone.status, [gone.successor]) == ("failed", live(harness))


async def test_a_redrive_without_a_key_is_looked_at_too(harness: ClientHarness) -> None:
    service = harness.queue.service
    one = replace(header(), redriven_from="d")
    first, second = [group(submission(name, one)) for name in ("first", "second")]
    assert (await service.submit([first, second]))[0] is None
    assert live(harness) == ["first"]
    gone = Refusal(DeadLetterNotFound.kind, "unknown")
    assert await service.submit([group(submission("third", replace(one, redriven_from="unknown")))]) == [gone]


async def test_a_redrive_under_another_key_is_refused_while_the_first_one_runs(harness: ClientHarness) -> None:
    client = await harness.client()
    (first,) = await redrive(client)
    keyed = replace(header(), redriven_from="d", idempotency_key="other:key")
    (refusal,) = await harness.queue.service.submit([group(submission("second", keyed))])
    assert refusal is not None
    assert (refusal.kind, refusal.job_id) == (IdempotencyConflict.kind, first)
    assert live(harness) == [first]


async def test_a_dead_letter_whose_redrive_ended_can_be_redriven_again_a_day_later(harness: ClientHarness) -> None:
    client = await harness.client()
    (first,) = await redrive(client)
    await harness.queue.claim(1)
    await harness.queue.exchange(completed(first), slots=0)
    await forget(harness.queue, after_s=25 * HOUR_S)
    (second,) = await redrive(client)
    assert live(harness) == [second] != [first]


async def test_a_deleted_dead_letter_whose_error_is_still_needed_is_not_retried_with_its_batch(
    harness: ClientHarness,
) -> None:
    service = harness.queue.service
    needs = replace(header(batch_id="f"), needs=(Need("d", ("x",)), Need("slow", ("y",))), on_error="include")
    await harness.queue.submit("slow", delay_ms=3_600_000)
    fan_in = SubmitGroup([submission("fan-in", needs)], batch=BatchSpec("f", kind="fan_in"))
    assert await service.submit([fan_in]) == [None]
    assert await service.dead_letters.delete(["d"]) == ["d"]
    assert (await harness.queue.view("d")).status == "failed"
    assert await retry(harness) == 0
    assert sorted(live(harness)) == ["fan-in", "slow"]


async def test_the_others_of_a_batch_are_retried_beside_one_that_was_redriven() -> None:
    async with ClientHarness() as harness:
        await batch_of_dead_letters(harness, "d", "e")
        client = await harness.client()
        (successor,) = await redrive(client)
        assert await retry(harness) == 1
        views = {view.id: view for view in await harness.queue.service.get_jobs(live(harness)) if view is not None}
        assert {view.header.redriven_from for view in views.values()} == {"d", "e"}
        assert views[successor].header.redriven_from == "d"
