"""The transport for tests fails as a network does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import EventsCall, SubmitGroup
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import group
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    """Return a service."""
    made = ServiceHarness()
    yield made
    await made.service.close()


async def test_a_lost_call_never_arrives(queue: ServiceHarness) -> None:
    transport = InProcessTransport(queue.service)
    transport.lose_calls("submit")
    with pytest.raises(QueueUnavailable):
        await transport.submit([group("a")])
    assert await transport.get_jobs(["a"]) == [None]
    assert (await transport.submit([group("a")])).groups == [None]
    assert transport.calls["submit"] == 2


async def test_a_lost_answer_is_of_a_call_that_was_carried_out(queue: ServiceHarness) -> None:
    transport = InProcessTransport(queue.service)
    transport.lose_answers("submit")
    with pytest.raises(QueueUnavailable):
        await transport.submit([group("a")])
    assert (await transport.get_jobs(["a"]))[0] is not None


async def test_a_restart_ends_calls_under_way(queue: ServiceHarness) -> None:
    transport = InProcessTransport(queue.service)
    poll = asyncio.create_task(transport.events(EventsCall("me", 0)))
    await until(lambda: queue.service._log._parked)
    transport.restart_with(queue.service)
    with pytest.raises(QueueUnavailable, match="restarted"):
        await poll


async def test_a_caller_that_goes_away_stops_no_call(queue: ServiceHarness) -> None:
    transport = InProcessTransport(queue.service)
    queue.memory.hold()
    call = asyncio.create_task(transport.submit([group("a")]))
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    queue.memory.release()
    assert (await transport.get_jobs(["a"]))[0] is not None


async def test_what_is_sent_is_encoded_so_that_nobody_shares_an_object(queue: ServiceHarness) -> None:
    transport = InProcessTransport(queue.service)
    sent: SubmitGroup = group("a")
    await transport.submit([sent])
    assert sent.jobs[0].header.created_at == 0.0, "the queue sets its own copy's time"
