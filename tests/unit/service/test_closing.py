"""A queue that closes answers whoever waits for something at once."""

from __future__ import annotations

import asyncio

from aiqueue.service.event_log import EventLog
from aiqueue.testing.jobs import group, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns

_LONG_S = 3_600.0
_LIMIT_S = 30.0


async def test_a_submit_that_lingers_is_answered_when_the_queue_closes() -> None:
    queue = ServiceHarness()
    groups = [group(submission("a"), submission("b"))]
    lingering = asyncio.ensure_future(queue.service.submit_and_linger(groups, _LONG_S))
    while not queue.service._log._lingering:
        await turns()
    await queue.service.close()
    async with asyncio.timeout(_LIMIT_S):
        reply = await lingering
    assert (reply.groups, reply.events) == ([None], [])
    assert queue.service._log._lingering == {}


async def test_a_submit_whose_commit_ends_while_the_queue_closes_does_not_linger() -> None:
    queue = ServiceHarness()
    lingering = asyncio.ensure_future(queue.service.submit_and_linger([group(submission("a"))], _LONG_S))
    await asyncio.sleep(0)  # it is at the writer, and its commit is still to come
    await queue.service.close()
    async with asyncio.timeout(_LIMIT_S):
        assert (await lingering).groups == [None]


async def test_a_log_that_is_closed_keeps_nobody_waiting() -> None:
    log = EventLog(next_number=1)
    log.close()
    async with asyncio.timeout(_LIMIT_S):
        assert await log.linger("me", ["a"], _LONG_S) == []
