"""Each who waits is answered, whatever the queue fails on: with the end or with the error, and no later for others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.coalescer import SubmitCoalescer
from aiqueue.client.event_feed import EventFeed
from aiqueue.client.listeners import Listeners
from aiqueue.errors import JobNotFound
from aiqueue.protocol import Event, EventsCall, EventsReply, JobView, Outcome, SubmitGroup, SubmitReply
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import chat, completed, failed, group, header
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


class BadLookUps(InProcessTransport):
    """A queue whose look-ups fail: the next ``fails`` of them, and all that are about a job in ``bad``."""

    def __init__(self, system: ClientHarness) -> None:
        super().__init__(system.queue.service)
        self.fails = 0
        self.failed = 0
        self.bad: set[str] = set()

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        if self.fails or self.bad & set(ids):
            self.fails = max(0, self.fails - 1)
            self.failed += 1
            raise OSError("disk I/O error")
        return await super().get_jobs(ids, with_payload=with_payload)


@pytest.fixture
def look_ups(system: ClientHarness, monkeypatch: pytest.MonkeyPatch) -> BadLookUps:
    monkeypatch.setattr("aiqueue.client.event_feed._RETRY_S", 0.0)
    return BadLookUps(system)


async def complete_at_the_second_attempt(system: ClientHarness, job_id: str) -> None:
    """Its end does not tell all: whoever waits is shown what a look-up finds."""
    await system.queue.claim()
    await system.queue.exchange(failed(job_id), slots=0)
    await until(system.queue.ready)
    await system.queue.claim()
    await system.queue.exchange(completed(job_id, 2), slots=0)


def end_of(job_id: str, number: int, *, result: bytes = b"") -> Event:
    """Return the event of a job that completed at its first attempt."""
    return Event(
        number, "job:completed", 1.0, job_id, "", "completed", "chat", "sim", "m", 1, 1, 1.0, 1.0, 0, result=result
    )


async def end_within_reach(*waits: asyncio.Task[Any]) -> None:
    await until(lambda: all(wait.done() for wait in waits))


@pytest.mark.parametrize("fails", [1, 3])
async def test_a_look_up_that_fails_is_made_again(system: ClientHarness, look_ups: BadLookUps, fails: int) -> None:
    client = await system.client(look_ups)
    job_id = await client.submit_job(chat(), {"max_retries": 1, "tags": ["a"]})
    wait = asyncio.create_task(client.wait(job_id))
    await system.polled()
    look_ups.fails = fails
    await complete_at_the_second_attempt(system, job_id)
    await end_within_reach(wait)
    info = wait.result()
    assert (info.status, info.attempt, info.tags) == ("completed", 2, ("a",))
    assert look_ups.failed == fails


async def test_a_job_that_can_not_be_looked_up_ends_its_wait_with_what_its_end_said(
    system: ClientHarness, look_ups: BadLookUps
) -> None:
    client = await system.client(look_ups)
    waits = []
    for _ in range(2):
        job_id = await client.submit_job(chat(), {"max_retries": 1, "tags": ["a"]})
        waits.append(asyncio.create_task(client.wait(job_id)))
        await system.polled()
        if not look_ups.bad:
            look_ups.bad.add(job_id)
        await complete_at_the_second_attempt(system, job_id)
    await end_within_reach(*waits)
    assert [wait.result().status for wait in waits] == ["completed"] * 2
    result = waits[0].result().result
    assert result is not None
    assert result.text
    assert waits[1].result().tags == ("a",)


async def test_a_job_that_can_not_be_looked_up_behind_a_gap_keeps_no_other_from_its_end(
    system: ClientHarness, look_ups: BadLookUps
) -> None:
    client = await system.client(look_ups)
    job_ids = await client.submit_jobs([chat()] * 5)
    waits = [asyncio.create_task(client.wait(job_id)) for job_id in job_ids]
    await system.polled()
    await system.queue.claim(5)
    look_ups.lose_answers("events", 1)
    look_ups.bad.add(job_ids[2])
    await system.queue.exchange(*map(completed, job_ids), slots=0)
    dead = system.queue
    await system.crash()
    look_ups.restart_with(system.queue.service)  # whose log begins anew, behind the ends
    assert dead is not system.queue
    await end_within_reach(*waits)
    with pytest.raises(OSError, match="disk I/O error"):
        waits.pop(2).result()
    assert [wait.result().status for wait in waits] == ["completed"] * 4


async def test_a_result_that_can_not_be_read_ends_its_wait_though_the_job_had_a_retry(
    system: ClientHarness, look_ups: BadLookUps
) -> None:
    client = await system.client(look_ups)
    job_id = await client.submit_job(chat(), {"max_retries": 1})
    wait = asyncio.create_task(client.wait(job_id))
    await system.polled()
    look_ups.bad.add(job_id)
    await system.queue.claim()
    await system.queue.exchange(failed(job_id), slots=0)
    await until(system.queue.ready)
    await system.queue.claim()
    await system.queue.exchange(Outcome(job_id, 2, b"no JSON"), slots=0)
    await end_within_reach(wait)
    with pytest.raises(Exception, match="malformed"):
        wait.result()


# --- submits ---


class OddQueue:
    """A queue whose answers to submits can't be used."""

    def __init__(self, reply: SubmitReply) -> None:
        self._reply = reply

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        return self._reply


async def test_an_answer_that_does_not_fit_its_submits_is_an_error_of_each() -> None:
    coalescer = SubmitCoalescer(OddQueue(SubmitReply([None])), lambda _: None)  # type: ignore[arg-type]
    submits = [asyncio.create_task(coalescer.submit(group(name))) for name in "abc"]
    await end_within_reach(*submits)
    assert submits[0].exception() is None
    assert all(submit.exception() is not None for submit in submits[1:])


async def test_an_end_that_can_not_be_taken_in_keeps_no_submit_from_its_answer() -> None:
    def refuse(events: list[Event]) -> None:
        raise ValueError("a result that is none")

    coalescer = SubmitCoalescer(OddQueue(SubmitReply([None, None])), refuse)  # type: ignore[arg-type]
    submits = [asyncio.create_task(coalescer.submit(group(name))) for name in "ab"]
    await end_within_reach(*submits)
    assert [submit.exception() for submit in submits] == [None, None]


async def test_an_unreadable_result_that_comes_with_the_answer_to_a_submit_ends_its_wait(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    feed = client._feed
    assert feed is not None
    bad, good = feed.expect("bad"), feed.expect("good")
    feed.resolve([end_of("bad", 1, result=b"no JSON"), end_of("good", 2)])
    assert isinstance(bad.exception(), Exception)
    assert good.result().status == "completed"


# --- listeners ---


async def test_a_listener_for_one_event_is_not_spent_on_one_that_can_not_be_read() -> None:
    listeners, heard = Listeners(), []
    listeners.add("job:completed", heard.append, once=True)
    with pytest.raises(Exception, match="malformed"):
        listeners.tell(end_of("a", 1, result=b"no JSON"))
    listeners.tell(end_of("b", 2))
    assert [event.number for event in heard] == [2]


class Forgetful:
    """A queue whose log has a gap, and that knows the job at the first look-up only."""

    def __init__(self) -> None:
        self.views: list[JobView | None] = [JobView("a", header(owner="client-b"), "queued", 0)]

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        return [self.views[0]]

    async def events(self, call: EventsCall) -> EventsReply:
        self.views = [None]
        await asyncio.sleep(0)
        return EventsReply([], call.after + 5, gap=True)


async def test_a_job_that_was_deleted_while_nothing_was_heard_of_it_ends_the_wait_for_it() -> None:
    feed = EventFeed(Forgetful(), "client-a", after=0)  # type: ignore[arg-type]
    (ended,) = await feed.join(["a"])
    with pytest.raises(JobNotFound):
        await ended
    await feed.stop()


class Overtaken:
    """A queue whose log has a gap, and whose answer to a first look-up comes after one to a later look-up.

    In between the job ended and was deleted.
    """

    def __init__(self) -> None:
        self._looked = self._polled = 0
        self._deleted = asyncio.Event()

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        self._looked += 1
        if self._looked > 1:
            self._deleted.set()
            return [None]
        await self._deleted.wait()
        return [JobView("a", header(owner="client-a"), "processing", 0)]

    async def events(self, call: EventsCall) -> EventsReply:
        self._polled += 1
        if self._polled > 1:
            await asyncio.Event().wait()
        return EventsReply([], call.after + 5, gap=True)


async def test_a_job_that_a_late_answer_shows_after_it_was_deleted_ends_the_wait_for_it() -> None:
    feed = EventFeed(Overtaken(), "client-a", after=0)  # type: ignore[arg-type]
    (ended,) = await feed.join(["a"])
    await end_within_reach(ended)
    assert isinstance(ended.exception(), JobNotFound)
    await feed.stop()


class Silence(InProcessTransport):
    """A queue that a client hears nothing of between its submit and the answer.

    Meanwhile the job ends, the queue is killed and comes back with a log that begins anew, and retention deletes the
    job. With ``late`` the client learns of the gap only when ``speak`` is called, else before its submit is answered.
    """

    def __init__(self, system: ClientHarness, *, late: bool) -> None:
        super().__init__(system.queue.service)
        self._system, self._late = system, late
        self.deleted = asyncio.Event()
        self._may_poll = asyncio.Event()
        self._may_poll.set()

    def speak(self) -> None:
        """Let the client's polls arrive again."""
        self._may_poll.set()

    async def events(self, call: EventsCall) -> EventsReply:
        await self._may_poll.wait()
        return await super().events(call)

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        system = self._system
        reply = await super().submit(groups)
        await system.polled()
        (job_id,) = await system.queue.claim()
        if self._late:
            self._may_poll.clear()
        self.lose_answers("events", 1)
        await system.queue.exchange(completed(job_id), slots=0)
        await system.crash()
        system.queue.clock.advance(2 * 86_400.0)
        system.queue.service._retention.tick()
        await until(lambda: not system.queue.journal.jobs([job_id]))
        self.restart_with(system.queue.service)
        self.deleted.set()
        if not self._late:
            await until(lambda: self.calls["get_jobs"])
            await system.polled()
        return reply


@pytest.mark.parametrize("late", [False, True], ids=["looked for before the answer", "looked for after it"])
async def test_a_job_that_was_deleted_before_its_submit_was_answered_ends_the_wait_for_it(
    system: ClientHarness, late: bool
) -> None:
    transport = Silence(system, late=late)
    client = await system.client(transport)
    wait = asyncio.create_task(client.submit_job_with_callback(chat()))
    await transport.deleted.wait()
    await turns()
    transport.speak()
    await end_within_reach(wait)
    with pytest.raises(JobNotFound):
        wait.result()
