"""Workers that are told to stop: whatever calls get lost or are late, no claim of theirs stays behind."""

from __future__ import annotations

import asyncio

import pytest

from aiqueue.protocol import ExchangeCall, ExchangeReply
from aiqueue.testing.jobs import POOL
from aiqueue.worker import loop as loop_module
from aiqueue.worker.loop import WorkerLoop
from aiqueue.worker.runner import JobRunner
from tests.tools.fake_provider import FakeProvider
from tests.tools.turns import turns, until
from tests.unit.worker.conftest import System
from tests.unit.worker.test_agreement import ByHand


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker ask again after a lost call sooner than it does for a queue that restarts."""
    monkeypatch.setattr(loop_module, "_RETRY_S", 0.0)


class Drained:
    """A worker whose queue answers by hand, and which is told to stop."""

    def __init__(self) -> None:
        self.queue, self.provider = ByHand(), FakeProvider()
        runner = JobRunner(lambda name: self.provider, max_result_bytes=10_000)
        self.loop = WorkerLoop("w", "pool", 4, queue=self.queue, runner=runner)
        self.working = asyncio.create_task(self.loop.run())
        self.stopping: asyncio.Task[None]

    def stop(self) -> None:
        self.stopping = asyncio.create_task(self.loop.stop(grace_s=0.0))

    async def hands_back(self, number: int, job_id: str) -> None:
        """See call ``number`` hand the job back, answer it, and see the worker end."""
        handed_back = (await self.queue.called(number)).outcomes
        assert [(outcome.job_id, outcome.cancelled) for outcome in handed_back] == [(job_id, True)]
        self.queue.answer(number)
        await until(self.stopping.done)
        await self.working
        assert not self.provider.calls


async def test_a_drain_after_a_lost_answer_hands_back_what_the_queue_had_granted_in_it() -> None:
    worker = Drained()
    await worker.queue.called(1)
    worker.queue.lose(1)  # the queue has granted a job in it
    assert (await worker.queue.called(2)).running == []
    worker.stop()
    assert (await worker.queue.called(3)).slots == 0
    worker.queue.answer(2)  # sent home by the third call
    await turns(20)
    assert not worker.stopping.done()
    worker.queue.answer(3, ("a", 1))
    await worker.hands_back(4, "a")


async def test_a_drain_does_not_end_by_the_answer_to_an_outcome_while_its_account_is_under_way() -> None:
    worker = Drained()
    worker.provider.hold()
    await worker.queue.called(1)
    worker.queue.answer(1, ("b", 1))
    await worker.queue.called(2)
    await until(lambda: worker.provider.calls)
    worker.queue.lose(2)
    await worker.queue.called(3)
    worker.provider.release()
    outcome_call = await worker.queue.called(4)
    assert [outcome.job_id for outcome in outcome_call.outcomes] == ["b"]
    worker.stop()
    worker.queue.answer(4)  # comes before the account's answer
    await turns(20)
    assert not worker.stopping.done()
    worker.provider.calls.clear()
    assert (await worker.queue.called(5)).running == []
    worker.queue.answer(5, ("a", 1))
    await worker.hands_back(6, "a")


async def test_a_claim_that_is_on_its_way_at_a_drain_is_handed_back() -> None:
    worker = Drained()
    await worker.queue.called(1)  # its answer has a claim
    worker.stop()
    account = await worker.queue.called(2)
    assert (account.slots, account.running) == (0, [])
    worker.queue.answer(2, ("a", 1))
    await worker.hands_back(3, "a")


async def test_a_grant_to_a_call_that_arrived_twice_is_handed_back_by_a_drain() -> None:
    """The queue granted a job to the call's twin, whose answer nobody hears, and then said "overtaken" to the call."""
    worker = Drained()
    await worker.queue.called(1)
    worker.stop()
    await worker.queue.called(2)
    worker.queue.reply(1, ExchangeReply(overtaken=True))
    await turns(20)
    worker.queue.answer(2, ("a", 1))
    await worker.hands_back(3, "a")


async def test_a_drain_whose_account_was_overtaken_gives_it_again_before_it_ends() -> None:
    worker = Drained()
    await worker.queue.called(1)
    worker.stop()
    await worker.queue.called(2)
    worker.queue.answer(1)
    worker.queue.reply(2, ExchangeReply(overtaken=True))
    assert (await worker.queue.called(3)).running == []
    worker.queue.answer(3, ("a", 1))
    await worker.hands_back(4, "a")


async def test_a_grant_to_a_call_from_before_the_account_is_handed_back_though_it_comes_after() -> None:
    """A queue that started again between the two no longer knew of the account, and held the job as granted."""
    worker = Drained()
    await worker.queue.called(1)
    worker.stop()
    await worker.queue.called(2)
    worker.queue.answer(2, ("b", 1))
    assert [outcome.job_id for outcome in (await worker.queue.called(3)).outcomes] == ["b"]
    worker.queue.answer(1, ("a", 1))
    assert (await worker.queue.called(4)).running == [("b", 1)]
    worker.queue.answer(3)
    worker.queue.answer(4, ("a", 1))
    await worker.hands_back(5, "a")


async def test_the_account_of_a_worker_that_drains_is_answered_though_there_is_nothing_to_say(system: System) -> None:
    """Else a worker that lost its last call would end only when its long poll does."""
    account = asyncio.create_task(system.queue.service.exchange(ExchangeCall("w", POOL, 0, [], [], number=1)))
    await until(account.done)
    assert account.result() == ExchangeReply()


@pytest.mark.parametrize("turns_before", range(0, 40, 3))
@pytest.mark.parametrize("turns_late", [0, 1, 5, 40])
async def test_after_a_lost_answer_and_a_drain_no_job_stays_with_the_worker(
    system: System, turns_before: int, turns_late: int
) -> None:
    ids = [f"job-{number}" for number in range(8)]
    await system.queue.submit(*ids)
    system.provider.hold()
    real = system.transport.exchange

    async def exchange(call: ExchangeCall) -> ExchangeReply:
        reply = await real(call)
        await turns(turns_late if reply.claims or call.running is not None else 0)
        return reply

    system.transport.exchange = exchange  # type: ignore[method-assign]
    system.transport.lose_answers("exchange")
    runner = JobRunner(lambda name: system.provider, max_result_bytes=10_000)
    loop = WorkerLoop("w", POOL, 8, queue=system.transport, runner=runner)
    working = asyncio.create_task(loop.run())
    await turns(turns_before)
    stopping = asyncio.create_task(loop.stop(grace_s=0.0))
    await until(stopping.done)
    await working
    assert {await system.status(job_id) for job_id in ids} == {"queued"}
