"""Who waits for a job's end is shown the same job as who looks it up afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import ProviderServerError
from aiqueue.protocol import JobView, Outcome
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import cancelled, chat, completed, failed, final
from aiqueue.views import JobInfo
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until

OPTIONS = {"tags": ["a", "b"], "metadata": {"user": 7}, "max_retries": 1}

Ending = Callable[[ClientHarness, str], Awaitable[None]]


async def report(system: ClientHarness, outcome: Outcome) -> None:
    """Let a worker claim the job and end its attempt."""
    await system.queue.claim()
    await system.queue.exchange(outcome, slots=0)


async def complete(system: ClientHarness, job_id: str) -> None:
    await report(system, completed(job_id))


async def complete_at_the_second_attempt(system: ClientHarness, job_id: str) -> None:
    await report(system, failed(job_id))
    await until(lambda: system.queue.service._engine.ready("pool", now=system.queue.clock.now()))
    await report(system, completed(job_id, 2))


async def fail(system: ClientHarness, job_id: str) -> None:
    await report(system, failed(job_id, 1, final()))


async def give_up(system: ClientHarness, job_id: str) -> None:
    await report(system, failed(job_id))
    await until(lambda: system.queue.service._engine.ready("pool", now=system.queue.clock.now()))
    await report(system, failed(job_id, 2))


async def cancel_before_it_ran(system: ClientHarness, job_id: str) -> None:
    await system.queue.service.cancel([job_id])


async def cancel_after_an_attempt(system: ClientHarness, job_id: str) -> None:
    await report(system, failed(job_id))
    await system.queue.service.cancel([job_id])


async def cancel_while_it_runs(system: ClientHarness, job_id: str) -> None:
    await system.queue.claim()
    await system.queue.service.cancel([job_id])
    await system.queue.exchange(cancelled(job_id), slots=0)


@pytest.mark.parametrize(
    "end",
    [
        complete,
        complete_at_the_second_attempt,
        fail,
        give_up,
        cancel_before_it_ran,
        cancel_after_an_attempt,
        cancel_while_it_runs,
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["own job", "another client's job"])
async def test_a_wait_shows_all_that_a_look_up_shows(
    system: ClientHarness, client: AsyncAIQueueAdapter, end: Ending, own: bool
) -> None:
    told: list[JobInfo] = []
    submitter = client if own else await system.client()
    job_id = await submitter.submit_job(chat(), OPTIONS)
    wait = asyncio.create_task(client.wait_all([job_id], told.append))
    await system.polled()
    await turns(50)
    await end(system, job_id)
    (shown,) = await asyncio.wait_for(wait, 120.0)
    assert shown == await client.get_job_status(job_id)
    assert (shown.tags, shown.metadata) == (("a", "b"), {"user": 7})
    assert told == [shown]


async def test_a_waiter_is_shown_all_also_when_the_submitter_gets_the_end_with_its_answer(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    def fail_once(_: object) -> None:
        if len(system.provider.calls) == 1:
            raise ProviderServerError("Provider sim: 503", status=503)

    system.provider.behave = fail_once
    await system.work()
    job_id = "0192b1d8-0000-7000-8000-000000000001"
    submit = asyncio.create_task(client.submit_job_with_callback(chat(), {**OPTIONS, "job_id": job_id}))
    await until(lambda: system.provider.calls)
    info = await client.wait(job_id)
    assert info == await client.get_job_status(job_id)
    assert [attempt.outcome for attempt in info.attempts] == ["failed"]
    assert (await submit).text == "Hi there"


class OldNews(InProcessTransport):
    """A queue whose answer to the first look-up is under way while the job ends."""

    def __init__(self, system: ClientHarness) -> None:
        super().__init__(system.queue.service)
        self.looked, self.arrives = asyncio.Event(), asyncio.Event()

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        views = await super().get_jobs(ids, with_payload=with_payload)
        if not self.looked.is_set():
            self.looked.set()
            await self.arrives.wait()
        return views


async def test_a_waiter_is_shown_all_also_when_the_end_overtakes_its_look_up(system: ClientHarness) -> None:
    transport = OldNews(system)
    client = await system.client(transport)
    job_id = await client.submit_job(chat(), OPTIONS)
    wait = asyncio.create_task(client.wait(job_id))
    await transport.looked.wait()
    await complete(system, job_id)
    await until(lambda: client._feed and job_id not in client._feed._waiting)
    transport.arrives.set()
    assert await wait == await client.get_job_status(job_id)
    assert (await wait).tags == ("a", "b")


async def test_a_look_up_that_gets_no_answer_is_made_again(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_id = await client.submit_job(chat(), OPTIONS)
    wait = asyncio.create_task(client.wait(job_id))
    await system.polled()
    await until(lambda: client._feed and client._feed._waiting.headers)
    system.transport.lose_answers("get_jobs", 2)
    await cancel_after_an_attempt(system, job_id)
    assert (await asyncio.wait_for(wait, 120.0)).status == "cancelled"
    assert system.transport.calls["get_jobs"] >= 4
