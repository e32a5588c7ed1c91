"""The time limits and ``on_gate`` as clients give them: what expires never runs, what is to fail fast does not wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.engine import Tick
from aiqueue.errors import CircuitOpen, JobExpired, RateLimited
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import until


@pytest.fixture
async def harness() -> AsyncIterator[ClientHarness]:
    async with ClientHarness() as made:
        yield made


async def passed(harness: ClientHarness, seconds: float) -> None:
    """Let time pass for the queue."""
    harness.queue.clock.advance(seconds)
    _, committed = harness.queue.service._apply(Tick())
    await committed


def limit(name: str, harness: ClientHarness) -> dict[str, Any]:
    """An option that lets a job expire ten seconds from now."""
    if name == "deadline":
        return {name: datetime.fromtimestamp(harness.queue.clock.now(), UTC) + timedelta(seconds=10)}
    return {name: 10_000}


@pytest.mark.parametrize("name", ["start_timeout", "expires_in", "deadline"])
async def test_a_job_that_did_not_start_in_time_expires_and_nothing_runs(harness: ClientHarness, name: str) -> None:
    client = await harness.client()
    job_id = await client.submit_job(chat(), limit(name, harness))
    await passed(harness, 9.0)
    assert (await status(client, job_id)) == "queued"
    await passed(harness, 2.0)
    await harness.work()
    info = await client.wait(job_id)
    assert (info.status, info.attempt) == ("expired", 0)
    assert harness.provider.calls == []
    with pytest.raises(JobExpired, match="not started before its deadline"):
        await client.submit_job_with_callback(chat(), {"deadline": datetime(2020, 1, 1, tzinfo=UTC)})


@pytest.mark.parametrize("name", ["start_timeout", "expires_in", "deadline"])
async def test_a_job_that_started_in_time_may_end_after_it(harness: ClientHarness, name: str) -> None:
    client = await harness.client()
    harness.provider.hold()
    await harness.work()
    job_id = await client.submit_job(chat(), limit(name, harness))
    await until(lambda: harness.provider.running)
    await passed(harness, 20.0)
    harness.provider.release()
    assert (await client.wait(job_id)).status == "completed"


async def test_of_two_limits_the_sooner_one_counts(harness: ClientHarness) -> None:
    client = await harness.client()
    job_id = await client.submit_job(chat(), {"start_timeout": 5_000, "expires_in": 60_000})
    await passed(harness, 6.0)
    assert (await status(client, job_id)) == "expired"


async def test_behind_a_closed_gate_a_job_waits_or_fails_as_it_says(harness: ClientHarness) -> None:
    def refuse(request: ProviderRequest) -> None:
        raise RateLimited("Provider sim: 429", status=429, retry_after_s=60.0)

    client = await harness.client()
    harness.provider.behave = refuse
    await harness.work()
    waits = await client.submit_job(chat(), {"on_gate": "wait"})
    await until(lambda: harness.provider.calls)
    await until(lambda: any(gate.closed_until for gate in harness.queue.service._engine.core.gates))
    with pytest.raises(CircuitOpen, match="rate limited by the provider"):
        await client.submit_job_with_callback(chat(), {"on_gate": "fail", "priority": "urgent"})
    harness.provider.behave = lambda request: None
    assert (await status(client, waits)) == "queued"
    await passed(harness, 61.0)
    info = await client.wait(waits)
    assert (info.status, info.retry_count) == ("completed", 0), "waiting at a gate costs no retry"
    assert len(harness.provider.calls) == 2


async def status(client: AsyncAIQueueAdapter, job_id: str) -> str:
    info = await client.get_job_status(job_id)
    assert info is not None
    return info.status
