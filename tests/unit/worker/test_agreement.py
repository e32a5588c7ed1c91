"""What worker and queue do when calls get lost or overtake each other, by a queue that answers by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import ClaimedJob, ExchangeCall, ExchangeReply
from aiqueue.worker import loop as loop_module
from aiqueue.worker.loop import WorkerLoop
from aiqueue.worker.runner import JobRunner
from tests.tools.fake_provider import FakeProvider
from tests.tools.turns import turns, until


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker ask again after a lost call sooner than it does for a queue that restarts."""
    monkeypatch.setattr(loop_module, "_RETRY_S", 0.0)


class ByHand:
    """A queue whose answers the test gives, in any order."""

    def __init__(self) -> None:
        self.calls: list[ExchangeCall] = []
        self._answers: list[asyncio.Future[ExchangeReply]] = []

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        self.calls.append(call)
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    async def called(self, count: int) -> ExchangeCall:
        """Wait for the worker's call number ``count``, from 1."""
        await until(lambda: len(self.calls) >= count)
        return self.calls[count - 1]

    def answer(self, number: int, *claims: tuple[str, int], cancels: Sequence[tuple[str, int]] = ()) -> None:
        """Answer a call."""
        given = [ClaimedJob(job_id, at, "chat_completion", "sim", "m", 1_000, b"{}") for job_id, at in claims]
        self._answers[number - 1].set_result(ExchangeReply(given, list(cancels)))

    def answer_once(self, number: int) -> None:
        """Answer a call with nothing, unless it has an answer."""
        if not self._answers[number - 1].done():
            self.answer(number)

    def reply(self, number: int, reply: ExchangeReply) -> None:
        """Answer a call with all that an answer can say."""
        self._answers[number - 1].set_result(reply)

    def lose(self, number: int) -> None:
        """Let a call go without an answer."""
        self._answers[number - 1].set_exception(QueueUnavailable("lost"))

    async def end(self, working: asyncio.Task[None]) -> None:
        """End the worker, whatever it waits for."""
        working.cancel()
        for answer in self._answers:
            answer.cancel()
        await asyncio.wait([working])


def by_hand(slots: int = 4, *, agree_every_s: float = 30.0) -> tuple[ByHand, FakeProvider, asyncio.Task[None]]:
    queue, provider = ByHand(), FakeProvider()
    runner = JobRunner(lambda name: provider, max_result_bytes=10_000)
    loop = WorkerLoop("w", "pool", slots, queue=queue, runner=runner, agree_every_s=agree_every_s)
    return queue, provider, asyncio.create_task(loop.run())


async def test_an_outcome_on_its_way_counts_as_held_when_another_call_is_lost() -> None:
    """Else the queue, which has not heard of it yet, would give the job again."""
    queue, provider, working = by_hand()
    provider.hold()
    await queue.called(1)
    queue.answer(1, ("a", 1))
    assert (await queue.called(2)).outcomes == []
    provider.release()
    outcome_call = await queue.called(3)
    assert [outcome.job_id for outcome in outcome_call.outcomes] == ["a"]
    queue.lose(2)
    assert (await queue.called(4)).running == [("a", 1)]
    queue.answer(4, ("b", 1))
    await until(lambda: len(provider.calls) == 2)
    await queue.end(working)


async def test_a_claim_in_an_answer_from_before_an_agreement_is_left_to_be_given_again() -> None:
    """The agreement did not name it, so the queue gives it again: run from both answers, it would run twice."""
    queue, provider, working = by_hand()
    provider.hold()
    await queue.called(1)
    queue.answer(1, ("a", 1))
    await queue.called(2)
    provider.release()
    await queue.called(3)
    queue.lose(3)  # it carried a's outcome; now there is a call that says all
    agreement = await queue.called(4)
    assert (agreement.running, [outcome.job_id for outcome in agreement.outcomes]) == ([], ["a"])
    queue.answer(2, ("b", 1))  # granted before the queue heard of the agreement
    await turns(20)
    queue.answer(4, ("b", 1))
    await until(lambda: any(call.outcomes and call.outcomes[0].job_id == "b" for call in queue.calls))
    await turns(20)
    assert [call.job_id for call in provider.calls] == ["a", "b"]
    await queue.end(working)


async def test_the_same_claim_twice_is_run_once() -> None:
    queue, provider, working = by_hand()
    provider.hold()
    await queue.called(1)
    queue.answer(1, ("a", 1))
    await queue.called(2)
    queue.answer(2, ("a", 1))
    await queue.called(3)
    provider.release()
    assert [outcome.job_id for outcome in (await queue.called(4)).outcomes] == ["a"]
    assert len(provider.calls) == 1
    await queue.end(working)


@pytest.mark.parametrize("cancelled", [0, 150, 299])
async def test_claims_of_an_answer_that_are_not_started_yet_count_as_held(cancelled: int) -> None:
    """An answer's jobs start over several turns of the loop. A call that leaves meanwhile names all of them."""
    queue, provider, working = by_hand(slots=600, agree_every_s=0.0)
    provider.hold()
    claims = [(f"job-{number:03}", 1) for number in range(300)]
    await queue.called(1)
    queue.answer(1, *claims, cancels=[claims[cancelled]])  # its outcome leaves before all others are started
    account = await queue.called(2)
    assert account.running is not None
    assert sorted([*account.running, *((each.job_id, each.attempt) for each in account.outcomes)]) == claims
    await until(lambda: len(provider.calls) == 299)
    await queue.end(working)


async def test_a_cancel_reaches_a_claim_that_is_not_started_yet() -> None:
    queue, provider, working = by_hand(slots=600)
    provider.hold()
    await queue.called(1)
    queue.answer(1, ("a", 1))
    await queue.called(2)
    provider.release()
    await queue.called(3)  # there are two calls under way now
    provider.hold()
    queue.answer(2, *((f"job-{number:03}", 1) for number in range(300)))
    queue.reply(3, ExchangeReply(cancels=[("job-299", 1)]))
    await until(lambda: any(call.outcomes for call in queue.calls[3:]))
    (stopped,) = [outcome for call in queue.calls[3:] for outcome in call.outcomes]
    assert (stopped.job_id, stopped.cancelled) == ("job-299", True)
    await until(lambda: len(provider.calls) == 300)
    assert "job-299" not in {call.job_id for call in provider.calls}
    await queue.end(working)


async def test_a_worker_that_stops_hands_back_claims_that_are_not_started_yet() -> None:
    queue, provider = ByHand(), FakeProvider()
    runner = JobRunner(lambda name: provider, max_result_bytes=10_000)
    loop = WorkerLoop("w", "pool", 600, queue=queue, runner=runner)
    working = asyncio.create_task(loop.run())
    provider.hold()
    await queue.called(1)
    queue.answer(1, *((f"job-{number:03}", 1) for number in range(300)))
    await until(lambda: loop.running)
    stopping = asyncio.create_task(loop.stop(grace_s=0.0))
    await queue.called(2)
    assert queue.calls[1].slots == 0
    reported: set[str] = set()
    while not stopping.done():
        for number, call in enumerate(list(queue.calls), 1):
            reported |= {outcome.job_id for outcome in call.outcomes if outcome.cancelled}
            if number > 1:
                queue.answer_once(number)
        await turns(1)
    assert len(reported) == 300, "each is told to the queue before the worker ends"
    await working
