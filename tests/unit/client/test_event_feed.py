"""Waiting for the ends of jobs: one's own and other clients'."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import JobNotFound, QueueUnavailable
from aiqueue.protocol import EventsCall, EventsReply, JobView, Outcome
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import POOL, chat, completed
from aiqueue.views import JobInfo
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


async def finish(system: ClientHarness, *job_ids: str) -> None:
    """Let a worker complete exactly these jobs, which it has claimed."""
    await system.queue.exchange(*(completed(job_id) for job_id in job_ids), slots=0)


async def test_a_client_hears_the_end_of_its_own_job(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_id = await client.submit_job(chat())
    wait = asyncio.create_task(client.wait(job_id))
    await turns(20)
    assert not wait.done()
    await system.work()
    info = await wait
    assert (info.job_id, info.status) == (job_id, "completed")
    assert info.result is not None
    assert info.result.text == "Hi there"


async def test_a_job_that_has_ended_before_is_found(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    await system.work()
    result = await client.submit_job_with_callback(chat())
    job_id = (await client.submit_jobs([chat()]))[0]
    assert (await client.wait(job_id)).status == "completed"
    assert (await client.wait(job_id)).status == "completed"
    assert result.text == "Hi there"


async def test_another_clients_job_is_watched_from_now_on(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    other = await system.client()
    job_id = await other.submit_job(chat())
    await client.submit_job(chat())  # this client polls already, for its own jobs only
    own = asyncio.create_task(client.wait(await client.submit_job(chat())))
    await system.polled()
    wait = asyncio.create_task(client.wait(job_id))
    await turns(50)
    await system.work()
    assert (await wait).status == "completed"
    await own


async def test_a_foreign_job_that_ends_while_its_watch_begins_is_not_missed(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    other = await system.client()
    for _ in range(10):
        job_id = await other.submit_job(chat())
        await system.queue.claim()
        wait, _ = await asyncio.gather(client.wait(job_id), finish(system, job_id))
        assert wait.status == "completed"


async def test_a_foreign_job_that_ends_behind_the_cursor_while_its_watch_begins_is_not_missed(
    system: ClientHarness,
) -> None:
    class SlowLookups(InProcessTransport):
        """Lookups whose answers are old when they arrive."""

        lookups = 0

        async def get_jobs(self, ids: Sequence[str]) -> list[JobView | None]:
            views = await super().get_jobs(ids)
            self.lookups += 1
            if self.lookups == 2:  # the one that says whom to watch; the first was about the client's own job
                await finish(system, foreign, own)
                await until(own_wait.done)  # so the poll, which does not want the foreign job yet, has moved on
            return views

    other, client = await system.client(), await system.client(transport := SlowLookups(system.queue.service))
    foreign = await other.submit_job(chat())
    own = await client.submit_job(chat())
    own_wait = asyncio.create_task(client.wait(own))
    await until(lambda: transport.lookups == 1 and system.queue.service._log._parked)
    await system.queue.claim(2)
    assert (await client.wait(foreign)).status == "completed"
    await own_wait
    assert transport.lookups >= 3


async def test_a_foreign_job_that_ends_while_a_stream_is_opened_is_not_missed(system: ClientHarness) -> None:
    class SlowEvents(InProcessTransport):
        """Polls that set out and arrive when they are let go."""

        def __init__(self) -> None:
            super().__init__(system.queue.service)
            self.gate = asyncio.Event()
            self.polls = 0

        async def events(self, call: EventsCall) -> EventsReply:
            self.polls += 1
            await self.gate.wait()
            return await super().events(call)

    transport = SlowEvents()
    other, client = await system.client(), await system.client(transport)
    job_id = await other.submit_job(chat())
    async with client.events(job_id="nobody"):
        await until(lambda: transport.polls == 1)  # on its way to the log's end
        wait = asyncio.create_task(client.wait(job_id))
        await until(lambda: transport.calls["get_jobs"] == 2)  # so the last look at the job is made, too
        await turns(20)
        await system.queue.claim()
        await finish(system, job_id)
        transport.gate.set()
        assert (await asyncio.wait_for(wait, 120.0)).status == "completed"


async def test_more_foreign_jobs_than_a_poll_can_name_are_heard_too(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    other = await system.client()
    job_ids = await other.submit_jobs([chat()] * 600)
    wait = asyncio.create_task(client.wait_all(job_ids))
    await turns(50)
    await system.work(slots=200)
    assert [info.job_id for info in await wait] == job_ids


async def test_a_client_holds_one_poll_however_many_jobs_it_waits_for(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    waits = [asyncio.create_task(client.submit_job_with_callback(chat())) for _ in range(100)]
    await system.polled()
    await turns(50)
    await system.polled()  # between two polls there is none for a moment
    before = system.transport.calls["events"]
    assert len(system.queue.service._log._parked) == 1
    await system.work(slots=100)
    await asyncio.gather(*waits)
    assert system.transport.calls["events"] - before < 20


async def test_several_waiters_of_one_job_all_hear(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_id = await client.submit_job(chat())
    waits = [asyncio.create_task(client.wait(job_id)) for _ in range(5)]
    twice = asyncio.create_task(client.wait_all([job_id, job_id]))
    await turns(20)
    await system.work()
    assert {info.status for info in await asyncio.gather(*waits)} == {"completed"}
    assert [info.job_id for info in await twice] == [job_id, job_id]


async def test_a_waiter_that_goes_away_leaves_no_trace(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_id = await client.submit_job(chat())
    wait = asyncio.create_task(client.wait(job_id))
    await system.polled()
    wait.cancel()
    await asyncio.wait([wait])
    assert client._feed is not None
    assert not client._feed._waiting


async def test_each_end_is_told_as_it_comes(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_ids = await client.submit_jobs([chat()] * 3)
    await system.queue.claim(3)
    ended: list[str] = []

    def note(info: JobInfo) -> None:
        ended.append(info.job_id)

    wait = asyncio.create_task(client.wait_all(job_ids, note))
    for job_id in reversed(job_ids):
        await finish(system, job_id)
        await until(lambda job_id=job_id: job_id in ended)
    assert [info.job_id for info in await wait] == job_ids
    assert ended == job_ids[::-1]


async def test_an_unknown_job_is_not_waited_for(client: AsyncAIQueueAdapter) -> None:
    with pytest.raises(JobNotFound, match="nobody"):
        await client.wait("nobody")


# --- lost calls and restarts -----------------------------------------------------------------------------------------


async def test_a_lost_poll_is_made_again(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    system.transport.lose_calls("events", 3)
    wait = asyncio.create_task(client.submit_job_with_callback(chat()))
    await until(lambda: system.transport.calls["events"] > 3)
    await system.work()
    assert (await wait).text == "Hi there"


async def test_a_lost_answer_loses_no_event(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    wait = asyncio.create_task(client.wait(await client.submit_job(chat())))
    await system.polled()
    system.transport.lose_answers("events", 2)
    await system.work()
    assert (await wait).status == "completed"


async def test_a_waiter_survives_a_restart_of_the_queue(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    waits = [asyncio.create_task(client.submit_job_with_callback(chat())) for _ in range(3)]
    await system.polled()
    await system.crash()
    await system.work()
    assert [result.text for result in await asyncio.gather(*waits)] == ["Hi there"] * 3


async def test_a_job_that_ended_beyond_the_log_is_looked_up(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_id = await client.submit_job(chat())
    wait = asyncio.create_task(client.wait(job_id))
    await system.polled()
    await system.queue.claim()
    system.transport.lose_answers("events", 1)
    await finish(system, job_id)
    await system.crash()  # the log begins anew, behind the job's end
    assert (await wait).status == "completed"


async def test_a_cursor_ahead_of_the_queue_is_put_right(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    """As after a crash with a durability that can lose the end."""
    assert client._feed is not None
    client._feed._after = 1_000
    wait = asyncio.create_task(client.submit_job_with_callback(chat()))
    await system.polled()
    await system.work()
    assert (await wait).text == "Hi there"
    assert client._feed._after < 1_000


async def test_a_result_that_can_not_be_read_ends_its_wait_and_no_other(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    bad, good = await client.submit_jobs([chat(), chat()])
    waits = [asyncio.create_task(client.wait(job_id)) for job_id in (bad, good)]
    await system.polled()
    await system.queue.claim(2)
    await system.queue.exchange(Outcome(bad, 1, b"no JSON"), completed(good), slots=0)
    with pytest.raises(Exception, match="malformed"):
        await waits[0]
    assert (await waits[1]).status == "completed"


async def test_a_bug_in_the_poll_ends_no_wait(system: ClientHarness) -> None:
    class Stumbling(InProcessTransport):
        failures = 2

        async def events(self, call: EventsCall) -> EventsReply:
            if self.failures:
                self.failures -= 1
                raise ZeroDivisionError
            return await super().events(call)

    client = await system.client(Stumbling(system.queue.service))
    wait = asyncio.create_task(client.submit_job_with_callback(chat()))
    await system.polled()
    await system.work()
    assert (await wait).text == "Hi there"


async def test_who_waits_when_the_client_is_stopped_is_told_so(system: ClientHarness) -> None:
    async with AsyncAIQueueAdapter(system.transport) as client:
        job_id = await client.submit_job(chat())
        waits = [
            asyncio.create_task(client.wait(job_id)),
            asyncio.create_task(client.submit_job_with_callback(chat())),
        ]
        await system.polled()
        await turns(100)
    for wait in waits:
        with pytest.raises(QueueUnavailable, match="stopped"):
            await wait
    assert POOL == "pool"
