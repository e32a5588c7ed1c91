"""Clients and workers of a queue that meets a bug, ends, and comes back: they repeat their calls, and get an answer."""

from __future__ import annotations

import asyncio

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.engine.states import JobState
from aiqueue.errors import QueueFault, WorkerFault
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.marked_engine import break_on
from tests.tools.service_harness import ServiceHarness

BAD = "01985a30-0000-7000-8000-00000000ff00"


class FaultySystem(ClientHarness):
    """A queue that is started again each time its process would have ended, with the same bug."""

    def __init__(self, *moves: JobState, submit: bool = False) -> None:
        super().__init__()
        self.moves, self.submit, self.ends = moves, submit, 0
        self._again: set[asyncio.Task[None]] = set()
        self.arm()

    def arm(self) -> None:
        """Put the bug in, and what starts the queue again."""
        self.queue.service._faults._end = self.ended
        break_on(self.queue.service._engine, BAD, self.moves, submit=self.submit)

    def ended(self) -> None:
        """Start the next queue, as Ray does."""
        self.ends += 1
        self._again.add(asyncio.ensure_future(self.start_again()))

    async def start_again(self) -> None:
        """Put the next queue in place; the dead one's thread ends."""
        dead = self.queue
        self.queue = ServiceHarness(dead.settings, dead.memory.crash())
        self.arm()
        self.transport.restart_with(self.queue.service)
        await dead.service.close()


async def mixed(client: AsyncAIQueueAdapter) -> list[object]:
    """Submit a bad job among good ones, all in one call, and wait for each."""
    options = [{}, {}, {"job_id": BAD}, {}]
    calls = (client.submit_job_with_callback(chat(str(at)), each) for at, each in enumerate(options))
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def test_a_submit_that_the_queue_can_not_take_is_refused_and_others_of_its_call_run() -> None:
    async with FaultySystem(submit=True) as system:
        client = await system.client()
        await system.work()
        first, second, bad, last = await mixed(client)
        assert isinstance(bad, QueueFault)
        assert [getattr(each, "text", each) for each in (first, second, last)] == ["Hi there"] * 3
        assert system.ends <= 2
        assert len(system.provider.calls) == 3


async def test_an_outcome_that_the_queue_can_not_take_fails_its_job_and_the_worker_goes_on() -> None:
    async with FaultySystem(JobState.COMPLETED) as system:
        client = await system.client()
        await system.work()
        first, second, bad, last = await mixed(client)
        assert isinstance(bad, WorkerFault)
        assert [getattr(each, "text", each) for each in (first, second, last)] == ["Hi there"] * 3
        assert system.ends <= 2
        assert (await client.submit_job_with_callback(chat("later"))).text == "Hi there"
        assert len(system.provider.calls) == 5, "no call was paid twice"


async def test_a_job_at_which_the_queue_ends_whatever_it_does_with_it_is_set_aside_and_its_waiter_is_told() -> None:
    async with FaultySystem(*(frozenset(JobState) - {JobState.PROCESSING})) as system:
        client = await system.client()
        await system.work()
        first, second, bad, last = await mixed(client)
        assert isinstance(bad, WorkerFault)
        assert [getattr(each, "text", each) for each in (first, second, last)] == ["Hi there"] * 3
        assert system.ends == 3
        assert (await client.get_stats()).restarts == 3
