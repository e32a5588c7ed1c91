"""Dead letters through the client: found, looked at, redriven once, forgotten."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from aiqueue.errors import JobNotFound, ProviderServerError, ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.protocol import DeadLettersCall
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat, failed
from tests.tools.client_harness import ClientHarness


@pytest.fixture
async def harness() -> AsyncIterator[ClientHarness]:
    async with ClientHarness() as made:
        yield made


def fail(request: ProviderRequest) -> None:
    raise ProviderServerError("Provider sim: 500", status=500)


async def dead_letter(harness: ClientHarness, client: Any, **options: Any) -> str:
    harness.provider.behave = fail
    job_id: str = await client.submit_job(chat(), {"max_retries": 1, **options})
    assert (await client.wait(job_id)).status == "dead_letter"
    harness.provider.behave = lambda request: None
    return job_id


async def test_a_dead_letter_is_found_by_reason_model_and_tag_with_its_attempts(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    job_id = await dead_letter(harness, client, tags=["bulk"])
    for filters in ({}, {"reason": "provider_server_error"}, {"tag": "bulk"}, {"model": "model-a"}):
        (found,) = await client.dead_letters.find(**filters)
        assert found.job_id == job_id
        assert [(attempt.attempt, attempt.outcome) for attempt in found.attempts] == [(1, "failed")]
        assert (found.attempt, found.error.status) == (2, 500)
    for filters in ({"reason": "timeout"}, {"tag": "other"}, {"model": "other"}):
        assert await client.dead_letters.find(**filters) == []


async def test_a_page_of_no_dead_letters_is_refused_by_the_client_and_empty_at_the_queue(
    harness: ClientHarness,
) -> None:
    await harness.work()
    client = await harness.client()
    job_id = await dead_letter(harness, client)
    with pytest.raises(ValidationError, match="limit: must be a whole number from 1"):
        await client.dead_letters.page(limit=0)
    for limit in (0, -1):  # as another client may ask
        reply = await harness.transport.list_dead_letters(DeadLettersCall(limit=limit))
        assert reply.jobs == []
        behind = await harness.transport.list_dead_letters(DeadLettersCall(before_seq=reply.before_seq))
        assert [view.id for view in behind.jobs] == [job_id]


async def test_a_dead_letter_is_inspected_with_its_payload(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    job_id = await dead_letter(harness, client)
    info, payload = await client.dead_letters.inspect(job_id)
    assert info.job_id == job_id
    assert msgspec.json.decode(payload)["messages"] == chat()["messages"]


async def test_a_redrive_is_one_new_job_however_often_it_is_asked_for(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    job_id = await dead_letter(harness, client)
    (first,) = await client.dead_letters.redrive([job_id], max_retries=5)
    (again,) = await client.dead_letters.redrive([job_id], max_retries=5)
    assert first == again != job_id
    info = await client.wait(first)
    assert (info.status, (await client.get_job_status(first)).redriven_from) == ("completed", job_id)


async def test_a_redrive_starts_anew_whatever_times_the_dead_letter_had(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    job_id = await dead_letter(harness, client, expires_in=60_000, run_at="2001-01-01T00:00:00Z")
    (again,) = await client.dead_letters.redrive([job_id])
    (view,) = await harness.transport.get_jobs([again])
    header = view.header
    assert (header.delay_ms, header.run_at, header.expires_in_ms, header.expires_at) == (0, 0.0, 0, 0.0)


async def test_a_patch_that_does_not_fit_is_refused(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    job_id = await dead_letter(harness, client)
    for patch in ({"max_retries": 11}, {"per_second": 0.0}, {"model": "model-z"}):
        with pytest.raises(ValidationError):
            await client.dead_letters.redrive([job_id], **patch)
    assert (await client.get_stats()).total_jobs == 1


@pytest.mark.parametrize("rate", [math.nan, -1.0, 0.0, 1e-300, 1e-14, 0.009, 10_001.0, math.inf])
async def test_a_redrive_at_a_rate_out_of_range_is_refused_and_submits_nothing(
    harness: ClientHarness, rate: float
) -> None:
    await harness.work()
    client = await harness.client()
    jobs = [await dead_letter(harness, client, max_retries=0) for _ in range(2)]
    with pytest.raises(ValidationError, match=r"per_second: must be 0\.01 to 10,000"):
        await client.dead_letters.redrive(jobs, per_second=rate)
    assert (await client.get_stats()).total_jobs == 2


@pytest.mark.parametrize(("rate", "second"), [(0.01, "scheduled"), (10_000.0, "queued")])
async def test_a_redrive_at_the_slowest_or_fastest_rate_is_there_after_a_restart(
    harness: ClientHarness, rate: float, second: str
) -> None:
    client = await harness.client()
    jobs = [await client.submit_job(chat(), {"max_retries": 0}) for _ in range(2)]
    await harness.queue.exchange(*map(failed, await harness.queue.claim(2)), slots=0)
    redriven = await client.dead_letters.redrive(jobs, per_second=rate)
    await harness.crash()
    assert [(await harness.queue.view(job_id)).status for job_id in redriven] == ["queued", second]


async def test_pages_go_on_where_the_last_one_ended(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    made = [await dead_letter(harness, client, max_retries=0) for _ in range(3)]
    seen, cursor = [], None
    for _ in range(3):
        page, cursor = await client.dead_letters.page(limit=1, cursor=cursor)
        seen += [info.job_id for info in page]
    assert seen == made[::-1]
    assert (await client.dead_letters.page(cursor=cursor))[0] == []
    assert [info.job_id for info in await client.dead_letters.find()] == seen


async def test_only_dead_letters_are_redriven_and_nothing_else_is_submitted(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    dead = await dead_letter(harness, client)
    healthy = await client.submit_job(chat())
    await client.wait(healthy)
    before = (await client.get_stats()).total_jobs
    with pytest.raises(JobNotFound):
        await client.dead_letters.redrive([dead, healthy])
    assert (await client.get_stats()).total_jobs == before


async def test_deleting_forgets_dead_letters_and_no_other_job(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    dead = await dead_letter(harness, client)
    healthy = await client.submit_job(chat())
    await client.wait(healthy)
    assert await client.dead_letters.delete([dead, healthy]) == [dead]
    assert await client.get_job_status(dead) is None
    assert (await client.get_job_status(healthy)).status == "completed"
    assert await client.dead_letters.find() == []


async def test_a_job_with_an_idempotency_key_is_the_same_job_the_second_time(harness: ClientHarness) -> None:
    await harness.work()
    client = await harness.client()
    options = {"idempotency_key": "order-7"}
    first = await client.submit_job(chat(), options)
    assert await client.submit_job(chat(), options) == first
    result = await client.submit_job_with_callback(chat(), options)
    assert result.text
    assert (await client.get_stats()).total_jobs == 1


@pytest.mark.parametrize("on_error", ["include", "skip"])
async def test_a_dead_letter_that_a_waiting_job_needs_is_deleted_without_hurting_that_job(
    harness: ClientHarness, on_error: str
) -> None:
    await harness.work()
    client = await harness.client()
    orchestrator = AsyncAIJobOrchestrator(client)
    bad = await dead_letter(harness, client)
    slow = await client.submit_job(chat(), {"delay": 3_600_000})
    text = {**chat(), "messages": [{"role": "user", "content": "{{results}}"}]}
    last = await orchestrator.fan_in_job([bad, slow], text, on_error=on_error)
    assert await client.dead_letters.delete([bad]) == [bad]
    assert await client.dead_letters.find() == []
    harness.queue.clock.advance(3_600.0)
    assert (await client.wait(last)).status == "completed"
