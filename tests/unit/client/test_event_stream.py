"""Events one after another, and the one long poll that all streams of a process share."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

from aiqueue.client import subscriptions
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.event_stream import EventStream, Gap
from aiqueue.client.listeners import JobEvent, SystemEvent
from aiqueue.errors import StartError
from aiqueue.protocol import EventsCall
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


async def test_a_client_iterates_over_chosen_events_through_a_restart_of_the_queue(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    async with client.events(names=["job:submitted", "job:completed"]) as stream:
        job_id = await client.submit_job(chat())
        first = await anext(stream)
        await system.crash()
        system.transport.lose_answers("events")
        await system.work()
        second = await anext(stream)
    assert isinstance(first, JobEvent)
    assert isinstance(second, JobEvent)
    assert [(first.name, first.job_id), (second.name, second.job_id)] == [
        ("job:submitted", job_id),
        ("job:completed", job_id),
    ]
    assert second.result is not None


async def test_an_unknown_name_is_refused(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    with pytest.raises(ValueError, match="job:done"):
        client.events(names=["job:done"])


async def numbers(stream: EventStream, count: int) -> list[int]:
    """Return the numbers of the next events; none may be missing."""
    seen = []
    for _ in range(count):
        item = await asyncio.wait_for(anext(stream), 10.0)
        assert not isinstance(item, Gap)
        seen.append(item.number)
    return seen


async def test_streams_of_one_client_hold_one_poll(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    streams = [client.events() for _ in range(20)]
    for stream in streams:
        await stream.open()
    await until(lambda: all(stream._subscription.joined for stream in streams))
    await client.submit_jobs([chat()] * 3)
    for stream in streams:
        assert await numbers(stream, 3) == [1, 2, 3]
    await system.polled()  # it pauses between an answer and the next poll
    assert len(system.queue.service._log._parked) == 1
    assert system.transport.calls["events"] < 10


async def test_a_stream_of_older_events_catches_up_and_goes_on_without_loss_or_repetition(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    other = await system.client()
    await other.submit_jobs([chat()] * 100)
    async with client.events() as live:
        await other.submit_job(chat())
        assert await numbers(live, 1) == [101]
        streams = {client.events(after=after): after for after in (0, 3, 64, 99, 100, 101)}
        seen: dict[EventStream, list[int]] = {stream: [] for stream in streams}
        last = 101
        while any(len(got) < 260 - streams[stream] for stream, got in seen.items()):
            if last < 260 and draw.random() < 0.4:
                count = min(draw.randint(1, 40), 260 - last)
                await other.submit_jobs([chat()] * count)
                last += count
            stream = draw.choice(list(streams))
            behind = last - streams[stream] - len(seen[stream])
            seen[stream] += await numbers(stream, min(behind, draw.randint(0, 30)))
        for stream, after in streams.items():
            assert seen[stream] == list(range(after + 1, 261))


async def test_a_reader_too_slow_for_its_buffer_asks_the_log_and_misses_nothing(
    system: ClientHarness, client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "BUFFER", 10)
    async with client.events() as slow, client.events() as quick:
        for _ in range(8):
            await client.submit_jobs([chat()] * 25)
            await numbers(quick, 25)
            assert len(slow._subscription._buffer) <= 10
        assert await numbers(slow, 200) == list(range(1, 201))
        await client.submit_job(chat())
        assert await numbers(slow, 1) == [201]


async def test_a_reader_too_slow_for_the_log_is_told_of_the_gap_and_goes_on(
    system: ClientHarness, client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "BUFFER", 10)
    monkeypatch.setattr(system.queue.service._log, "_max_events", 50)
    async with client.events() as slow:
        await client.submit_jobs([chat()] * 200)
        await until(lambda: slow._subscription.lags(0))
        gap = await anext(slow)
        assert isinstance(gap, Gap)
        assert gap.after < gap.number == 200
        await client.submit_job(chat())
        assert await numbers(slow, 1) == [201]


@pytest.mark.parametrize("ahead", [1, 500, 2**63 - 4])
@pytest.mark.parametrize("of_a_job", [True, False])
async def test_a_cursor_ahead_of_the_log_is_told_of_the_gap_and_goes_on(
    system: ClientHarness, client: AsyncAIQueueAdapter, ahead: int, of_a_job: bool
) -> None:
    job_id, *_ = await client.submit_jobs([chat()] * 3)
    async with client.events(3 + ahead, job_id=job_id if of_a_job else None) as stream:
        assert await asyncio.wait_for(anext(stream), 10.0) == Gap(3 + ahead, 3)
        await client.cancel_job(job_id)
        assert await numbers(stream, 1) == [4]


async def test_a_stream_of_one_job_is_not_filled_by_others(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_id = await client.submit_job(chat())
    async with client.events() as everything, client.events(job_id=job_id) as one:
        await client.submit_jobs([chat()] * 50)
        await numbers(everything, 50)
        assert not one._subscription._buffer
        await client.cancel_job(job_id)
        item = await anext(one)
        assert isinstance(item, JobEvent)
        assert (item.name, item.job_id) == ("job:cancelled", job_id)


async def test_an_old_cursor_of_the_poll_costs_a_new_stream_no_old_events(system: ClientHarness) -> None:
    seen: list[EventsCall] = []
    ask = system.transport.events

    async def note(call: EventsCall) -> object:
        seen.append(call)
        reply = await ask(call)
        assert len(reply.events) <= 1
        return reply

    client, other = await system.client(), await system.client()
    await other.submit_jobs([chat()] * 500)
    system.transport.events = note  # type: ignore[method-assign, assignment]
    async with client.events() as stream:
        await until(lambda: stream._subscription.joined)
        await other.submit_job(chat())
        assert await numbers(stream, 1) == [501]
    assert seen


async def test_watching_other_jobs_and_names_takes_effect_from_then_on(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    first, second, third = await client.submit_jobs([chat()] * 3)
    async with client.events(job_id=first) as stream:
        await until(lambda: stream._subscription.joined)
        stream.watch([second], also=["worker-pool:scaled-up"])
        await client.cancel_job(first)
        await client.cancel_job(third)
        await system.transport.announce("worker-pool:scaled-up", {"new_size": 2})
        await client.cancel_job(second)
        scaled, cancelled = await anext(stream), await anext(stream)
    assert isinstance(scaled, SystemEvent)
    assert isinstance(cancelled, JobEvent)
    assert cancelled.job_id == second


async def test_a_stream_ends_with_its_client(system: ClientHarness) -> None:
    async with AsyncAIQueueAdapter(system.transport) as client:
        stream = client.events()
        waiting = asyncio.create_task(anext(stream))
        await until(lambda: stream._subscription.joined)
    with pytest.raises(StartError, match="stopped"):
        await waiting


async def test_a_stream_left_without_a_word_is_let_go(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    async def read_one() -> None:
        async for _ in client.events(after=0):
            break

    await client.submit_job(chat())
    await read_one()
    await turns()
    gc.collect()
    assert client._feed is not None
    assert not client._feed.subscriptions
