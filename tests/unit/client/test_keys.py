"""Idempotency keys of several jobs: one key for all, which are accepted whole and once."""

from __future__ import annotations

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import DuplicateBatch, DuplicateJob, IdempotencyConflict, QueueFull, ValidationError
from aiqueue.testing.jobs import chat, settings
from tests.tools.client_harness import ClientHarness

KEY = {"idempotency_key": "key-1"}


async def total(client: AsyncAIQueueAdapter) -> int:
    return (await client.get_stats()).total_jobs


async def test_a_long_list_with_a_key_is_accepted_whole_and_once(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    first = await client.submit_jobs([chat()] * 1_500, KEY)
    await system.crash()
    assert await client.submit_jobs([chat()] * 1_500, KEY) == first
    assert len(set(first)) == await total(client) == 1_500
    assert await system.queue.claim(1_500) == first


async def test_a_long_list_with_a_key_that_does_not_fit_leaves_nothing() -> None:
    config = settings(models=("model-a",))
    limited = config.model_copy(update={"limits": config.limits.model_copy(update={"max_queue_depth": 1_200})})
    async with ClientHarness(limited) as system:
        client = await system.client()
        with pytest.raises(QueueFull):
            await client.submit_jobs([chat()] * 1_500, KEY)
        assert await total(client) == 0


async def test_a_list_of_one_with_a_used_key_returns_the_job_that_has_it(client: AsyncAIQueueAdapter) -> None:
    job_id = await client.submit_job(chat(), KEY)
    assert await client.submit_jobs([chat()], KEY) == [job_id]


async def test_a_list_with_a_used_key_and_another_job_is_refused(client: AsyncAIQueueAdapter) -> None:
    await client.submit_jobs([chat("a"), chat("b")], KEY)
    with pytest.raises(IdempotencyConflict, match="key 'key-1' was"):
        await client.submit_jobs([chat("a"), chat("c")], KEY)
    assert await total(client) == 2


async def test_a_batch_by_its_key_is_the_first_batch(client: AsyncAIQueueAdapter) -> None:
    first = await client.submit_batch([chat()] * 3, idempotency_key="key-1")
    assert await client.submit_batch([chat()] * 3, idempotency_key="key-1") == first
    assert await client.submit_batch([chat()] * 3, idempotency_key="key-2") != first
    assert await total(client) == 6


async def test_an_empty_batch_is_refused_and_an_empty_list_is_nothing(client: AsyncAIQueueAdapter) -> None:
    assert await client.submit_jobs([], KEY) == []
    with pytest.raises(ValidationError, match="empty"):
        await client.submit_batch([], idempotency_key="key-1")


async def test_a_batch_id_can_be_chosen_once(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    first = await client.submit_jobs([chat("a"), chat("b")], batch_id="nightly")
    with pytest.raises(DuplicateBatch, match="batch id nightly is taken") as refused:
        await client.submit_jobs([chat("c")], batch_id="nightly")
    assert refused.value.http_status == 409
    await system.work()
    await client.wait_all(first)
    with pytest.raises(DuplicateBatch):
        await client.submit_jobs([chat("c")], batch_id="nightly")
    assert await total(client) == 2


async def test_a_batch_with_a_chosen_id_and_a_used_key_has_the_ids_of_the_first_time(
    client: AsyncAIQueueAdapter,
) -> None:
    first = await client.submit_jobs([chat("a"), chat("b")], KEY, batch_id="nightly")
    assert await client.submit_jobs([chat("a"), chat("b")], KEY, batch_id="nightly") == first
    assert await total(client) == 2


async def test_a_chosen_job_id_that_has_ended_is_the_same_job_or_refused_in_a_batch_too(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    chosen = {"job_id": "01985a30-0000-7000-8000-00000000ff05"}
    await system.work()
    ids = await client.submit_jobs([chat("a")], chosen, batch_id="nightly")
    await client.wait_all(ids)
    assert await client.submit_jobs([chat("a")], chosen, batch_id="nightly") == ids
    with pytest.raises(DuplicateJob):
        await client.submit_jobs([chat("other")], chosen, batch_id="weekly")
    assert await total(client) == len(system.provider.calls) == 1
