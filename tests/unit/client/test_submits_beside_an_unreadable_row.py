"""Submits of several callers leave in one call, and the queue can't read a row that one of them names."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from aiqueue.errors import RecordUnreadable
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.result_reader import ResultReader
from aiqueue.orchestrator.waiting import wait_for
from aiqueue.testing.jobs import chat, completed
from tests.tools.broken_journal import BrokenJournal
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import until


@pytest.fixture
async def harness() -> AsyncIterator[ClientHarness]:
    async with ClientHarness(journal=BrokenJournal()) as made:
        yield made


def broken(harness: ClientHarness) -> BrokenJournal:
    assert isinstance(harness.queue.journal, BrokenJournal)
    return harness.queue.journal


async def test_callers_beside_one_whose_row_can_not_be_read_are_told_that_their_jobs_are_accepted(
    harness: ClientHarness,
) -> None:
    client = await harness.client()
    job_id = await client.submit_job(chat("3"), {"job_id": str(uuid.uuid4())})
    broken(harness).broken = {job_id}
    calls = Counter(harness.transport.calls)
    again, keyed, plain = await asyncio.gather(
        client.submit_job(chat("3"), {"job_id": job_id}),
        client.submit_job(chat("4"), {"idempotency_key": "k4"}),
        client.submit_job(chat("5")),
        return_exceptions=True,
    )
    assert harness.transport.calls["submit"] == calls["submit"] + 1, "they left in one call"
    assert isinstance(again, RecordUnreadable)
    assert "DatabaseError" in str(again)
    assert harness.queue.service._engine.core.live.keys() == {job_id, keyed, plain}


async def test_callers_beside_one_that_needs_a_job_whose_state_can_not_be_read_are_told_so_too(
    harness: ClientHarness,
) -> None:
    client = await harness.client()
    needed = await client.submit_job(chat("a"))
    await harness.queue.claim(1)
    await harness.queue.exchange(completed(needed), slots=0)
    broken(harness).broken_states = {needed}
    fan_in, *others = await asyncio.gather(
        AsyncAIJobOrchestrator(client).fan_in_job([needed], chat("{{results}}")),
        client.submit_job(chat("b")),
        client.submit_job(chat("c")),
        return_exceptions=True,
    )
    assert isinstance(fan_in, RecordUnreadable)
    assert harness.queue.service._engine.core.live.keys() == set(others)


async def test_each_that_waits_for_results_is_told_of_its_own_job(harness: ClientHarness) -> None:
    client = await harness.client()
    bad, good = [await client.submit_job(chat(text)) for text in "ab"]
    await harness.queue.claim(2)
    await harness.queue.exchange(completed(bad), completed(good), slots=0)
    broken(harness).broken = broken(harness).broken_states = {bad}
    reader = ResultReader(harness.transport)
    unread, read = await asyncio.gather(reader.read(bad), reader.read(good), return_exceptions=True)
    assert isinstance(unread, RecordUnreadable)
    assert not isinstance(read, BaseException)
    await wait_for(client, [bad, good], stop_on_error=False)


async def test_a_wait_for_a_job_whose_row_can_not_be_read_for_a_moment_is_told_what_it_came_to(
    harness: ClientHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiqueue.client.event_feed._RETRY_S", 0.0)
    client = await harness.client()
    job_id = await client.submit_job(chat())
    await harness.queue.claim()
    await harness.queue.exchange(completed(job_id), slots=0)
    journal = broken(harness)
    journal.broken, journal.broken_states = {job_id}, {job_id}
    wait = asyncio.create_task(client.wait(job_id))
    await until(lambda: journal.reads > 5)  # more than one look costs
    journal.broken, journal.broken_states = set(), set()
    info = await wait
    assert (info.status, info.error) == ("completed", None)
