"""Who is told about what."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.listeners import EVENTS, GateEvent, JobEvent, Listeners, SystemEvent, job_event
from aiqueue.engine.publishing import BATCH_ENDED, BATCH_SUBMITTED, EVENT_NAMES, GATE_CLOSED, GATE_OPENED, SUBMITTED
from aiqueue.errors import ProviderServerError, RateLimited, ValidationError
from aiqueue.protocol import ANNOUNCED, RESTARTED
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


class Seen:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []

    def __call__(self, event: JobEvent) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.name.removeprefix("job:") for event in self.events]


async def test_a_listener_hears_of_every_clients_jobs(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    seen, other = Seen(), await system.client()
    client.on("job:completed", seen)
    await system.work()
    mine = await client.submit_job(chat())
    theirs = await other.submit_job(chat())
    await until(lambda: len(seen.events) == 2)
    assert {event.job_id for event in seen.events} == {mine, theirs}
    event = seen.events[0]
    assert event.result is not None
    assert event.result.text == "Hi there"
    assert event.sla_compliance is not None
    assert (event.job.status, event.sla_compliance.met, event.error) == ("completed", True, None)


async def test_a_listener_hears_at_once_of_a_job_whose_submitter_waits_for_it(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    """The submitter's answer brings the result along; that must hold up nobody else."""
    mine, theirs, other = Seen(), Seen(), await system.client()
    client.on("job:completed", mine)
    other.on("job:completed", theirs)
    await system.work()
    await until(lambda: len(system.queue.service._log._parked) == 2)
    await client.submit_job_with_callback(chat())
    await until(lambda: mine.events and theirs.events)


async def test_another_client_that_waits_hears_at_once_of_a_job_whose_submitter_waits_for_it(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    other = await system.client()
    system.provider.hold()
    await system.work()
    submit = asyncio.create_task(client.submit_job_with_callback(chat()))
    await until(lambda: system.provider.calls)
    wait = asyncio.create_task(other.wait(system.provider.calls[0].job_id))
    await until(lambda: len(system.queue.service._log._parked) == 2)
    system.provider.release()
    await asyncio.wait_for(asyncio.gather(submit, wait), 10.0)


async def test_a_wildcard_listener_hears_a_jobs_whole_life_in_order(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    def fail_once(request: ProviderRequest) -> None:
        if len(system.provider.calls) == 1:
            raise ProviderServerError("Provider sim: 503", status=503)

    seen = Seen()
    client.on("job:*", seen)
    system.provider.behave = fail_once
    await system.work()
    await client.submit_job(chat())
    await until(lambda: "completed" in seen.names)
    assert seen.names == ["submitted", "processing", "retried", "processing", "completed"]
    assert [event.number for event in seen.events] == [1, 2, 3, 4, 5]
    retried = seen.events[2]
    assert isinstance(retried.error, ProviderServerError)
    assert retried.retry_count == 1
    assert retried.job.status == "scheduled"


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, GeneratorExit, pytest.fail.Exception])
async def test_a_listener_that_raises_stops_nobody(
    error: type[BaseException], system: ClientHarness, client: AsyncAIQueueAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(event: JobEvent) -> None:
        raise error

    seen = Seen()
    client.on("job:completed", stumble)
    client.on("job:completed", seen)
    await system.work()
    with caplog.at_level(logging.ERROR):
        await client.submit_job_with_callback(chat())
        await client.submit_job_with_callback(chat())
        await until(lambda: len(seen.events) == 2)
    assert error.__name__ in caplog.text


async def test_a_program_that_cancels_all_tasks_can_wait_and_listen_again(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    client.on("job:completed", seen := Seen())
    assert client._feed is not None
    assert client._feed._task is not None
    client._feed._task.cancel()
    await system.work()
    assert (await client.wait(await client.submit_job(chat()))).status == "completed"
    await until(lambda: len(seen.events) == 1)


async def test_an_asynchronous_listener_runs_beside_and_its_errors_are_logged(
    system: ClientHarness, client: AsyncAIQueueAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    seen, gate = Seen(), asyncio.Event()

    async def slow(event: JobEvent) -> None:
        await gate.wait()
        seen(event)
        raise ZeroDivisionError

    client.on("job:completed", slow)
    await system.work()
    await client.submit_job_with_callback(chat())
    await client.submit_job_with_callback(chat())
    with caplog.at_level(logging.ERROR):
        gate.set()
        await until(lambda: len(seen.events) == 2)
        await turns()
    assert "an asynchronous listener failed" in caplog.text


async def test_a_decorated_function_is_a_listener_and_stays_a_function(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    heard: list[str] = []

    @client.on("job:submitted")
    def note(event: JobEvent) -> None:
        heard.append(event.job_id)

    assert note.__name__ == "note"
    job_id = await client.submit_job(chat())
    await until(lambda: heard)
    assert heard == [job_id]


async def test_a_listener_that_was_taken_off_hears_no_more(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    off, on = Seen(), Seen()
    client.on("job:completed", off)
    client.on("job:completed", on)
    client.off("job:completed", off)
    client.off("job:completed", off)
    await system.work()
    await client.submit_job(chat())
    await until(lambda: on.events)
    assert off.events == []
    client.off("job:completed", on)
    assert client._feed is not None
    assert not client._feed.listens


async def test_a_listener_put_on_for_once_hears_once_whatever_it_does(
    system: ClientHarness, client: AsyncAIQueueAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    every, wild = Seen(), Seen()
    once: list[str] = []

    @client.once("job:submitted")
    async def note(event: JobEvent) -> None:
        once.append(event.job_id)
        raise ZeroDivisionError

    client.once("job:*", wild)
    client.on("job:submitted", every)
    job_ids = [await client.submit_job(chat()) for _ in range(3)]
    await until(lambda: len(every.events) == 3)
    assert note.__name__ == "note"
    assert once == job_ids[:1]
    assert [event.job_id for event in wild.events] == job_ids[:1]
    assert "an asynchronous listener failed" in caplog.text


async def test_the_poll_asks_for_no_more_once_nobody_listens(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    seen = Seen()
    client.once("job:submitted", seen)
    client.once("job:failed", seen)
    client.off("job:failed", seen)
    await client.submit_job(chat())
    await until(lambda: seen.events)
    assert client._feed is not None
    assert not client._feed.listens


async def test_a_listener_put_on_before_the_start_hears_too(system: ClientHarness) -> None:
    seen, client = Seen(), AsyncAIQueueAdapter(system.transport)
    client.on("job:submitted", seen)
    async with client:
        await client.submit_job(chat())
        await until(lambda: seen.events)


async def test_an_event_nobody_sends_is_refused(client: AsyncAIQueueAdapter) -> None:
    with pytest.raises(ValueError, match=r"unknown event 'job:finished'; there are: batch:ended, .* and job:\*, .*"):
        client.on("job:finished", Seen())


def test_every_event_of_the_queue_can_be_listened_to() -> None:
    assert {
        *EVENT_NAMES.values(),
        SUBMITTED,
        GATE_CLOSED,
        GATE_OPENED,
        BATCH_SUBMITTED,
        BATCH_ENDED,
        RESTARTED,
        *ANNOUNCED,
    } == EVENTS


async def test_what_is_announced_is_heard_in_its_place_and_is_no_jobs_event(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    scaled: list[SystemEvent] = []
    jobs, everything = Seen(), Seen()
    client.on("worker-pool:*", scaled.append)
    client.on("job:*", jobs)
    client.on("*", everything)
    first = await client.submit_job(chat())
    await system.transport.announce("worker-pool:scaled-up", {"previous_size": 1, "new_size": 3})
    await client.submit_job(chat())
    await until(lambda: len(everything.events) == 3)
    assert [event.number for event in everything.events] == [1, 2, 3]
    assert [event.number for event in jobs.events] == [1, 3]
    assert jobs.events[0].job_id == first
    (event,) = scaled
    assert (event.name, event.number, event.data) == (
        "worker-pool:scaled-up",
        2,
        {"previous_size": 1, "new_size": 3},
    )


async def test_a_gates_event_says_until_when_and_why(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    def refuse(request: ProviderRequest) -> None:
        raise RateLimited("sim", retry_after_s=40.0)

    heard: list[GateEvent] = []
    client.on("gate:closed", heard.append)
    system.provider.behave = refuse
    await system.work()
    await client.submit_job(chat())
    await until(lambda: heard)
    (event,) = heard
    assert (event.gate, event.provider, event.model) == ("sim/model-a", "sim", "model-a")
    assert event.reason == "rate limited by the provider"
    assert event.until is not None
    assert event.until.timestamp() == system.queue.clock.now() + 40.0


def test_nobody_is_told_when_nobody_listens() -> None:
    listeners = Listeners()
    assert listeners.wanted() == frozenset()
    listeners.add("job:*", Seen())
    listeners.add("job:failed", Seen())
    assert listeners.wanted() == {"*"}
    assert callable(job_event)


@pytest.mark.parametrize("name", [[], {}, None, 3, b"job:completed", "job:done", ""])
def test_a_name_that_is_none_gets_the_same_error_to_add_and_to_remove(name: object) -> None:
    listeners = Listeners()
    said = []
    for change in (listeners.add, listeners.remove):
        with pytest.raises(ValidationError) as raised:
            change(name, print)
        said.append(str(raised.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("listener", [5, None, "print"])
def test_what_can_not_be_called_is_no_listener(listener: Any) -> None:
    with pytest.raises(ValidationError, match="must be a function"):
        Listeners().add("job:completed", listener)
