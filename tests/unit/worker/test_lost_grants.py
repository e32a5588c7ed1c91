"""Grants that reached no worker, though no call failed: both sides agree again within a heartbeat."""

from __future__ import annotations

import pytest

from aiqueue.protocol import ClaimedJob, ExchangeCall, ExchangeReply, Outcome
from aiqueue.testing.jobs import POOL
from aiqueue.worker.loop import _MOST_FAILURES
from tests.tools.turns import turns, until
from tests.unit.worker.conftest import System
from tests.unit.worker.test_agreement import by_hand


async def test_a_grant_that_vanished_without_a_failed_call_is_found_with_the_next_call() -> None:
    system = System()
    await system.queue.submit("a")
    real, swallowed = system.transport.exchange, 0

    async def swallowing(call: ExchangeCall) -> ExchangeReply:
        nonlocal swallowed
        reply = await real(call)
        if reply.claims and not swallowed:
            swallowed = len(reply.claims)
            reply.claims = []
        return reply

    system.transport.exchange = swallowing  # type: ignore[method-assign]
    async with system.worker():
        assert await system.ended("a") == ["completed"]
    assert (swallowed, system.calls_of("a"), (await system.queue.view("a")).attempt) == (1, 1, 1)
    await system.queue.service.close()


async def test_a_worker_that_is_always_busy_agrees_once_a_heartbeat_too() -> None:
    queue, provider, working = by_hand(agree_every_s=0.0)
    provider.hold()
    await queue.called(1)
    queue.answer(1, ("a", 1))
    assert (await queue.called(2)).running == [("a", 1)]
    await queue.end(working)


async def test_calls_are_numbered_in_the_order_in_which_they_are_made() -> None:
    queue, provider, working = by_hand()
    provider.hold()
    await queue.called(1)
    queue.answer(1, ("a", 1))
    await queue.called(2)
    provider.release()
    await queue.called(3)
    assert [call.number for call in queue.calls] == [1, 2, 3]
    await queue.end(working)


async def test_an_overtaken_call_is_given_nothing_and_its_outcomes_count(system: System) -> None:
    service = system.queue.service
    await system.queue.submit("a")
    await service.exchange(ExchangeCall("w", POOL, 1, number=1))
    await system.queue.submit("b", "c")
    outcome = Outcome("a", 1, b"{}")
    newer = await service.exchange(ExchangeCall("w", POOL, 2, number=3))
    assert [claim.job_id for claim in newer.claims] == ["b"]
    late = await service.exchange(ExchangeCall("w", POOL, 4, [outcome], number=2))
    assert (late.claims, late.overtaken) == ([], True)
    assert await system.status("a") == "completed"
    again = await service.exchange(ExchangeCall("w", POOL, 4, number=3))
    assert (again.claims, again.overtaken) == ([], True)
    next_one = await service.exchange(ExchangeCall("w", POOL, 2, number=4))
    assert [claim.job_id for claim in next_one.claims] == ["c"]


async def test_an_account_that_was_overtaken_is_given_again() -> None:
    queue, _, working = by_hand()
    await queue.called(1)
    queue.lose(1)
    assert (await queue.called(2)).running == []
    queue.reply(2, ExchangeReply(overtaken=True))
    assert (await queue.called(3)).running == []
    await queue.end(working)


async def test_a_job_whose_payload_is_gone_fails_alone(system: System) -> None:
    await system.queue.submit("a", "b")
    system.queue.service._workers.payloads.take(1)
    real = system.queue.memory.payloads
    system.queue.memory.payloads = lambda seqs, **_: real([seq for seq in seqs if seq != 1])  # type: ignore[method-assign]
    async with system.worker():
        assert await system.ended("a", "b") == ["failed", "completed"]
    view = await system.queue.view("a")
    assert view.failure is not None
    assert view.failure.kind == "payload_lost"


@pytest.mark.parametrize("jobs", [1, 5])
async def test_an_outcome_on_which_the_queue_always_fails_keeps_no_other_from_it(system: System, jobs: int) -> None:
    names = [f"job-{number}" for number in range(jobs)]
    await system.queue.submit(*names)
    real = system.transport.exchange

    async def failing(call: ExchangeCall) -> ExchangeReply:
        if any(outcome.job_id == "job-0" and outcome.result for outcome in call.outcomes):
            raise ZeroDivisionError("the queue can't take this one")
        return await real(call)

    system.transport.exchange = failing  # type: ignore[method-assign]
    async with system.worker():
        ends = await system.ended(*names)
    assert ends == ["failed", *["completed"] * (jobs - 1)]


async def test_an_outcome_on_which_the_queue_always_fails_is_replaced_while_others_are_taken(system: System) -> None:
    real, failed_alone = system.transport.exchange, 0

    async def failing(call: ExchangeCall) -> ExchangeReply:
        nonlocal failed_alone
        if any(outcome.job_id == "bad" and outcome.result for outcome in call.outcomes):
            failed_alone += len(call.outcomes) == 1
            raise ZeroDivisionError("the queue can't take this one")
        return await real(call)

    system.transport.exchange = failing  # type: ignore[method-assign]
    await system.queue.submit("bad", *(f"good-{number}" for number in range(200)))
    async with system.worker():
        assert await system.ended("bad") == ["failed"]
    assert failed_alone == _MOST_FAILURES


async def test_an_outcome_that_cant_be_encoded_fails_its_job_and_no_other(system: System) -> None:
    await system.queue.submit("a", "b")
    runner_error = Outcome("a", 1, tokens=2**70)
    loop = system.worker()
    async with loop as working:  # type: ignore[attr-defined]
        real = working._runner.run

        async def run(job: ClaimedJob) -> Outcome:
            return runner_error if job.job_id == "a" else await real(job)

        working._runner.run = run
        assert await system.ended("a", "b") == ["failed", "completed"]
    await turns()
    await until(lambda: not system.queue.service._engine.core.live)
