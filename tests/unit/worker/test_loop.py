"""The worker's loop against a real queue in the same process."""

from __future__ import annotations

import asyncio

from aiqueue.errors import ProviderServerError
from aiqueue.protocol import ExchangeCall, ExchangeReply
from aiqueue.providers.base import ProviderRequest
from aiqueue.results import decode_result
from tests.tools.turns import turns, until
from tests.unit.worker.conftest import System


async def test_a_worker_runs_what_waits_and_what_comes(system: System) -> None:
    await system.queue.submit("before")
    async with system.worker():
        assert await system.ended("before") == ["completed"]
        await system.queue.submit("later")
        assert await system.ended("later") == ["completed"]
    assert [call.job_id for call in system.provider.calls] == ["before", "later"]


async def test_what_a_cancelled_job_had_produced_is_in_its_record(system: System) -> None:
    system.provider.partial = "Hi th"
    system.provider.hold()
    await system.queue.submit("a")
    async with system.worker():
        await until(lambda: system.provider.running)
        await system.queue.service.cancel(["a"])
        assert await system.ended("a") == ["cancelled"]
    assert decode_result((await system.queue.view("a")).result).text == "Hi th"


async def test_a_worker_runs_as_many_at_once_as_it_has_slots(system: System) -> None:
    names = [f"job-{number}" for number in range(10)]
    await system.queue.submit(*names)
    system.provider.hold()
    async with system.worker(slots=3):
        await until(lambda: system.provider.running == 3)
        await turns(20)
        assert system.provider.running == 3
        system.provider.release()
        assert await system.ended(*names) == ["completed"] * 10
    assert system.provider.most_at_once == 3


async def test_outcomes_of_one_turn_leave_together_but_at_most_half_the_slots_turn_over_in_one_call(
    system: System,
) -> None:
    names = [f"job-{number}" for number in range(20)]
    await system.queue.submit(*names)
    system.provider.hold()
    async with system.worker(slots=20):
        await until(lambda: system.provider.running == 20)
        assert len(system.transport.sent) == 2  # each answer brought half
        system.provider.release()
        await system.ended(*names)
    carried = [len(call.outcomes) for call in system.transport.sent if call.outcomes]
    assert carried == [10, 10]


async def test_a_worker_with_one_slot_turns_it_over(system: System) -> None:
    await system.queue.submit("a", "b")
    async with system.worker(slots=1):
        assert await system.ended("a", "b") == ["completed"] * 2


async def test_an_outcome_does_not_wait_for_the_poll_under_way(system: System) -> None:
    await system.queue.submit("a", "b")
    system.provider.hold()
    async with system.worker():
        await until(lambda: system.provider.running == 2)
        await until(lambda: list(system.queue.service._workers.parked))
        system.provider.release()
        assert await system.ended("a", "b") == ["completed"] * 2


async def test_a_worker_without_a_free_slot_asks_for_nothing_but_hears_of_a_cancel(system: System) -> None:
    await system.queue.submit("a", "b")
    system.provider.hold()
    async with system.worker(slots=2):
        await until(lambda: system.provider.running == 2)
        await turns(20)
        assert len(system.transport.sent) == 2  # one for each half of its slots
        await system.queue.service.cancel(["a"])
        assert await system.ended("a") == ["cancelled"]
        system.provider.release()
        assert await system.ended("b") == ["completed"]


async def test_never_more_than_two_calls_are_under_way(system: System) -> None:
    names = [f"job-{number}" for number in range(200)]
    await system.queue.submit(*names)
    most = 0
    under_way = 0
    real = system.transport.exchange

    async def counted(call: ExchangeCall) -> ExchangeReply:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        try:
            return await real(call)
        finally:
            under_way -= 1

    system.transport.exchange = counted  # type: ignore[method-assign]
    async with system.worker(slots=7):
        await system.ended(*names)
    assert most == 2


async def test_a_failed_attempt_is_tried_again_by_the_queue(system: System) -> None:
    def fail_twice(request: ProviderRequest) -> None:
        if len(system.provider.calls) < 3:
            raise ProviderServerError("Provider sim: 503", status=503)

    system.provider.behave = fail_twice
    await system.queue.submit("a")
    async with system.worker():
        assert await system.ended("a") == ["completed"]
    view = await system.queue.view("a")
    assert (view.attempt, view.retries) == (3, 2)


async def test_a_job_that_always_fails_is_tried_as_often_as_it_says(system: System) -> None:
    def fail(request: ProviderRequest) -> None:
        raise ProviderServerError("Provider sim: 500", status=500)

    system.provider.behave = fail
    await system.queue.submit("a", max_retries=2)
    async with system.worker():
        assert await system.ended("a") == ["dead_letter"]
    assert system.calls_of("a") == 3


async def test_a_timeout_is_tried_again(system: System) -> None:
    system.provider.hold()
    await system.queue.submit("a", timeout_ms=1, max_retries=1)
    async with system.worker():
        assert await system.ended("a") == ["dead_letter"]
    failure = (await system.queue.view("a")).failure
    assert failure is not None
    assert (failure.kind, failure.retryable) == ("timeout", True)
    assert system.provider.stopped == ["a", "a"]


async def test_a_bug_in_a_provider_ends_its_job_and_no_other(system: System) -> None:
    def stumble(request: ProviderRequest) -> None:
        if request.job_id == "bad":
            raise ZeroDivisionError

    system.provider.behave = stumble
    await system.queue.submit("bad", "good")
    async with system.worker():
        assert await system.ended("bad", "good") == ["failed", "completed"]
    assert system.calls_of("bad") == 1


# --- cancel ----------------------------------------------------------------------------------------------------------


async def test_a_cancel_stops_the_call(system: System) -> None:
    await system.queue.submit("a")
    system.provider.hold()
    async with system.worker():
        await until(lambda: system.provider.running)
        await system.queue.service.cancel(["a"])
        assert await system.ended("a") == ["cancelled"]
    assert system.provider.stopped == ["a"]


async def test_a_job_cancelled_before_its_first_step_is_never_run(system: System) -> None:
    await system.queue.submit("a")
    await system.queue.claim(worker="w")  # whose reply is lost
    await system.queue.service.cancel(["a"])
    system.transport.lose_calls("exchange")
    async with system.worker():
        assert await system.ended("a") == ["cancelled"]
    assert system.provider.calls == []


async def test_a_cancel_of_what_a_worker_does_not_run_is_ignored(system: System) -> None:
    await system.queue.submit("a")
    async with system.worker() as loop:
        await system.ended("a")
        loop._running.clear()
        await system.queue.submit("b")
        assert await system.ended("b") == ["completed"]


# --- stop ------------------------------------------------------------------------------------------------------------


async def test_an_idle_worker_stops_while_its_poll_waits(system: System) -> None:
    async with asyncio.timeout(10.0):
        async with system.worker() as loop:
            await until(lambda: list(system.queue.service._workers.parked))
            await loop.stop(grace_s=10.0)
    await system.queue.submit("a")
    await turns(20)
    assert await system.status("a") == "queued", "a worker that stopped must be given nothing"


async def test_a_stopping_worker_lets_its_jobs_end_and_takes_no_more(system: System) -> None:
    await system.queue.submit("a", "b")
    system.provider.hold()
    async with asyncio.timeout(10.0):
        async with system.worker(slots=1) as loop:
            await until(lambda: system.provider.running)
            stop = asyncio.create_task(loop.stop(grace_s=10.0))
            await turns(20)
            assert not stop.done()
            system.provider.release()
            await stop
    assert (await system.status("a"), await system.status("b")) == ("completed", "queued")


async def test_a_worker_without_time_hands_its_jobs_back_unharmed(system: System) -> None:
    await system.queue.submit("a", "b")
    system.provider.hold()
    async with asyncio.timeout(10.0):
        async with system.worker() as loop:
            await until(lambda: system.provider.running == 2)
            await loop.stop(grace_s=0.0)
    for job_id in ("a", "b"):
        view = await system.queue.view(job_id)
        assert (view.status, view.retries, view.crashes) == ("queued", 0, 0)
    assert sorted(system.provider.stopped) == ["a", "b"]


async def test_a_worker_says_how_much_it_runs_and_that_it_drains(system: System) -> None:
    await system.queue.submit("a", "b")
    system.provider.hold()
    async with system.worker() as loop:
        await until(lambda: system.provider.running == 2)
        assert (loop.running, loop.draining) == (2, False)
        stop = asyncio.create_task(loop.stop(grace_s=10.0))
        await turns()
        assert (loop.running, loop.draining) == (2, True)
        system.provider.release()
        await stop
        assert loop.running == 0


async def test_a_claim_that_arrives_while_a_worker_stops_is_handed_back(system: System) -> None:
    await system.queue.submit("a")
    system.queue.memory.hold()  # the claim is made but its answer waits for the disk
    async with system.worker() as loop:
        assert await asyncio.to_thread(system.queue.memory.held.wait, 10.0)
        stop = asyncio.create_task(loop.stop(grace_s=10.0))
        await turns()
        system.queue.memory.release()
        await stop
    assert system.provider.calls == []
    view = await system.queue.view("a")
    assert (view.status, view.attempt) == ("queued", 1)


async def test_a_worker_can_stop_when_the_queue_comes_back(system: System) -> None:
    await system.queue.submit("a")
    system.provider.hold()
    async with system.worker() as loop:
        await until(lambda: list(system.queue.service._workers.parked) and system.provider.running)
        stop = asyncio.create_task(loop.stop(grace_s=0.0))
        system.transport.lose_calls("exchange", 5)
        await stop
    assert await system.status("a") == "queued"
