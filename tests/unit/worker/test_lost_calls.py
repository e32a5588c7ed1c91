"""Calls between a worker and the queue that get lost, on their way or on the way back."""

from __future__ import annotations

import logging

import pytest

from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import ExchangeCall, ExchangeReply
from tests.tools.turns import until
from tests.unit.worker.conftest import System


async def test_an_outcome_whose_answer_was_lost_is_sent_again_and_counts_once() -> None:
    system = System(heartbeat_s=0.01)  # each call is answered soon, if with nothing
    await system.queue.submit("a")
    real = system.transport.exchange
    lost = 0

    async def losing(call: ExchangeCall) -> ExchangeReply:
        nonlocal lost
        reply = await real(call)
        if call.outcomes and not lost:
            lost += 1
            raise QueueUnavailable("the answer was lost")
        return reply

    system.transport.exchange = losing  # type: ignore[method-assign]
    async with system.worker():
        assert await system.ended("a") == ["completed"]
        await until(lambda: system.queue.service.stats().adapter.stale_outcomes)
    assert (lost, system.calls_of("a")) == (1, 1)
    assert system.queue.service.stats().adapter.completed_jobs == 1
    await system.queue.service.close()


async def test_an_outcome_whose_call_was_lost_is_sent_again(system: System) -> None:
    await system.queue.submit("a")
    system.provider.hold()
    async with system.worker():
        await until(lambda: list(system.queue.service._workers.parked) and system.provider.running)
        system.transport.lose_calls("exchange", 3)
        system.provider.release()
        assert await system.ended("a") == ["completed"]
    assert system.calls_of("a") == 1
    assert system.queue.service.stats().adapter.stale_outcomes == 0


async def test_a_claim_whose_answer_was_lost_is_given_again_under_the_same_attempt(system: System) -> None:
    await system.queue.submit("a")
    system.transport.lose_answers("exchange")
    async with system.worker():
        assert await system.ended("a") == ["completed"]
    assert system.calls_of("a") == 1
    assert (await system.queue.view("a")).attempt == 1


async def test_a_worker_tells_what_it_holds_after_a_lost_call_and_only_then(system: System) -> None:
    await system.queue.submit("a")
    system.provider.hold()
    async with system.worker():
        await until(lambda: list(system.queue.service._workers.parked) and system.provider.running)
        system.transport.restart_with(system.queue.service)
        await until(lambda: system.transport.sent[-1].running is not None)
        assert system.transport.sent[-1].running == [("a", 1)]
        await system.queue.submit("b")
        await until(lambda: system.provider.running == 2)
        await until(lambda: list(system.queue.service._workers.parked))
        assert system.transport.sent[-1].running is None
        system.provider.release()
        await system.ended("a", "b")


async def test_a_restart_of_the_queue_repeats_no_call(system: System) -> None:
    await system.queue.submit("a", "b")
    system.provider.hold()
    async with system.worker():
        await until(lambda: list(system.queue.service._workers.parked) and system.provider.running == 2)
        system.queue = await system.queue.crashed()
        system.transport.restart_with(system.queue.service)
        system.provider.release()
        assert await system.ended("a", "b") == ["completed"] * 2
    assert (system.calls_of("a"), system.calls_of("b")) == (1, 1)


async def test_no_outcome_is_lost_when_the_queue_has_a_bug(system: System, caplog: pytest.LogCaptureFixture) -> None:
    await system.queue.submit("a")
    real = system.transport.exchange
    failures = 2

    async def stumbling(call: ExchangeCall) -> ExchangeReply:
        nonlocal failures
        if call.outcomes and failures:
            failures -= 1
            raise ZeroDivisionError("a bug in the queue")
        return await real(call)

    system.transport.exchange = stumbling  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        async with system.worker():
            assert await system.ended("a") == ["completed"]
    assert "a bug in the queue" in caplog.text
