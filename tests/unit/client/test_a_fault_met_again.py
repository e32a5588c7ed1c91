"""A request that ended the queue's process, made again with its key: other ids, but the same request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.engine import AddSchedule, Submit
from aiqueue.errors import QueueFault, QueueUnavailable
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.testing.jobs import chat
from tests.tools.turns import until
from tests.unit.client.test_a_faulty_queue import FaultySystem

Request = Callable[[AsyncAIQueueAdapter, str, str], Awaitable[object]]
BAD = "impossible"


async def job(client: AsyncAIQueueAdapter, text: str, key: str) -> object:
    return await client.submit_job(chat(text), {"idempotency_key": key})


async def jobs_at_once(client: AsyncAIQueueAdapter, text: str, key: str) -> object:
    return await client.submit_batch([chat("first"), chat(text)], idempotency_key=key)


async def chain(client: AsyncAIQueueAdapter, text: str, key: str) -> object:
    async with AsyncAIJobOrchestrator(client) as orchestrator:
        return await orchestrator.create_job_chain([chat("first"), chat(text)], idempotency_key=key)


async def graph(client: AsyncAIQueueAdapter, text: str, key: str) -> object:
    nodes = {"a": {"payload": chat("first")}, "b": {"payload": chat(text), "depends_on": ["a"]}}
    async with AsyncAIJobOrchestrator(client) as orchestrator:
        return await orchestrator.submit_graph(nodes, idempotency_key=key)


async def schedule(client: AsyncAIQueueAdapter, text: str, key: str) -> object:
    return await client.schedules.add(chat(text), name=key, cron_expression="@daily", idempotency_key=key)


async def schedule_without_key(client: AsyncAIQueueAdapter, text: str, key: str) -> object:
    return await client.schedules.add(chat(text), name=key, cron_expression="@daily")


class FaultyQueue(FaultySystem):
    """Its engine can't take a certain text."""

    def arm(self) -> None:
        super().arm()
        engine = self.queue.service._engine
        handle = engine.handle

        def broken(command: Any, *, now: float) -> Any:
            effects = handle(command, now=now)
            if isinstance(command, Submit | AddSchedule) and BAD in repr(command):
                raise KeyError("text")
            return effects

        engine.handle = broken  # type: ignore[method-assign]


@pytest.mark.parametrize("request_of", [job, jobs_at_once, chain, graph, schedule, schedule_without_key])
async def test_a_request_that_ended_the_process_is_refused_when_it_is_made_again_with_its_key(
    request_of: Request,
) -> None:
    async with FaultyQueue() as system:
        client = await system.client()
        for _ in range(3):
            with pytest.raises((QueueFault, QueueUnavailable)) as refused:
                await request_of(client, BAD, "key")
            await until(lambda: not system.queue.service._faults.failed)
        assert (refused.type, system.ends) == (QueueFault, 1)
        assert await request_of(client, "a text that was mended", "key")
        assert await request_of(client, "another text", "another key")
        assert system.ends == 1
