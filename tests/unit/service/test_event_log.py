"""The numbered log and its long polls."""

from __future__ import annotations

import asyncio

import pytest

from aiqueue.errors import TooManyPolls
from aiqueue.protocol import Event, EventsCall
from aiqueue.service import event_log
from aiqueue.service.event_log import EventLog
from tests.tools.turns import turns


def event(
    number: int, *, owner: str = "me", name: str = "job:completed", job_id: str = "", size: int = 0, level: int = 0
) -> Event:
    return Event(
        number,
        name,
        1.0,
        job_id or f"job-{number}",
        owner,
        "completed",
        "t",
        "p",
        "m",
        level,
        1,
        0.0,
        0.0,
        1,
        "",
        "",
        b"x" * size,
    )


def call(after: int = 0, *, wait_s: float = 0.0, **fields: object) -> EventsCall:
    made = EventsCall("me", after, wait_s=wait_s)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def log_of(*events: Event, first: int = 1, **limits: int) -> EventLog:
    log = EventLog(next_number=first, **limits)
    log.publish(list(events))
    return log


def numbers(events: list[Event]) -> list[int]:
    return [each.number for each in events]


async def test_a_reader_gets_what_came_after_its_cursor() -> None:
    log = log_of(event(1), event(2), event(3))
    reply = await log.poll(call(after=1))
    assert (numbers(reply.events), reply.after, reply.gap) == ([2, 3], 3, False)


async def test_a_reader_that_is_up_to_date_waits_for_the_next_event() -> None:
    log = log_of(event(1))
    poll = asyncio.create_task(log.poll(call(after=1, wait_s=10.0)))
    await turns()
    assert not poll.done()
    log.publish([event(2)])
    assert numbers((await poll).events) == [2]


async def test_a_reader_who_was_just_answered_gets_what_follows_in_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_EVERY_S", 0.05)
    log = log_of(event(1, level=2))
    await log.poll(call())
    poll = asyncio.create_task(log.poll(call(after=1, wait_s=10.0)))
    await turns()
    log.publish([event(2, level=2)])
    await turns()
    assert not poll.done()
    log.publish([event(3, level=3)])
    assert numbers((await poll).events) == [2, 3]


async def test_a_reader_hears_of_an_urgent_job_at_once() -> None:
    log = log_of(event(1, level=2))
    await log.poll(call())
    poll = asyncio.create_task(log.poll(call(after=1, wait_s=10.0)))
    await turns()
    log.publish([event(2, level=2)])
    log.publish([event(3, level=0)])
    await turns()
    assert poll.done()


async def test_a_reader_is_not_woken_by_what_it_does_not_want() -> None:
    log = log_of()
    poll = asyncio.create_task(log.poll(call(wait_s=10.0)))
    await turns()
    log.publish([event(1, owner="other")])
    await turns()
    assert not poll.done()
    log.publish([event(2)])
    reply = await poll
    assert (numbers(reply.events), reply.after) == ([2], 2)


async def test_a_wait_without_an_event_ends_with_the_cursor_moved_on() -> None:
    log = log_of(event(1, owner="other"), event(2, owner="other"))
    reply = await log.poll(call(wait_s=0.001))
    assert (reply.events, reply.after, reply.gap) == ([], 2, False)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, [1, 4]),
        ({"watching": ["job-2"]}, [1, 2, 4]),
        ({"all_owners": True}, [1, 2, 3, 4]),
        ({"names": ["job:failed"]}, [4]),
        ({"names": ["job:failed"], "all_owners": True}, [3, 4]),
        ({"names": ["job:failed"], "watching": ["job-3", "job-2"]}, [3, 4]),
        ({"names": ["job:nothing"]}, []),
        ({"client_id": "stranger"}, []),
        ({"limit": 2, "all_owners": True}, [1, 2]),
    ],
)
async def test_a_reader_gets_what_it_asked_for(fields: dict[str, object], wanted: list[int]) -> None:
    log = log_of(
        event(1), event(2, owner="other"), event(3, owner="other", name="job:failed"), event(4, name="job:failed")
    )
    assert numbers((await log.poll(call(**fields))).events) == wanted


async def test_a_limited_reader_goes_on_from_the_last_event_it_got() -> None:
    log = log_of(*(event(number, owner="me" if number % 3 else "other") for number in range(1, 5_001)))
    seen: list[int] = []
    after = 0
    while (reply := await log.poll(call(after, limit=700))).events:
        seen += numbers(reply.events)
        after = reply.after
    assert seen == [number for number in range(1, 5_001) if number % 3]


async def test_a_reader_that_fell_behind_the_window_is_told_so() -> None:
    log = log_of(*(event(number) for number in range(1, 21)), max_events=8)
    reply = await log.poll(call(after=0))
    assert (reply.events, reply.gap, reply.after) == ([], True, 20)
    assert numbers((await log.poll(call(after=19))).events) == [20]


async def test_a_reader_ahead_of_a_journal_that_lost_its_end_is_told_so() -> None:
    log = log_of(event(5), first=5)
    reply = await log.poll(call(after=9))
    assert (reply.gap, reply.after) == (True, 5)


async def test_a_reader_exactly_at_the_end_of_the_log_before_a_restart_misses_nothing() -> None:
    log = log_of(first=8)
    assert log.last == 7
    reply = await log.poll(call(after=7))
    assert (reply.gap, reply.after) == (False, 7)
    assert (await log.poll(call(after=6))).gap


async def test_the_window_is_bounded_in_number_and_in_bytes() -> None:
    log = EventLog(next_number=1, max_events=100, max_bytes=50_000)
    for number in range(1, 1_001):
        log.publish([event(number)])
        assert len(log._events) <= 125
    for number in range(1_001, 1_101):
        log.publish([event(number, size=5_000)])
        assert log._bytes <= 50_000
    assert log._bytes == sum(len(each.result) + 500 for each in log._events)
    assert log.last == 1_100


async def test_one_commit_with_more_than_the_window_holds_keeps_to_the_bounds() -> None:
    log = EventLog(next_number=1, max_events=100, max_bytes=50_000)
    log.publish([event(number, size=10_000) for number in range(1, 201)])
    assert log._bytes <= 50_000
    assert log.last == 200
    assert numbers((await log.poll(call(after=199))).events) == [200]


async def test_a_new_poll_of_a_client_sends_its_older_one_home() -> None:
    log = log_of()
    older = asyncio.create_task(log.poll(call(wait_s=10.0)))
    await turns()
    newer = asyncio.create_task(log.poll(call(wait_s=10.0, all_owners=True)))
    assert (await older).events == []
    log.publish([event(1, owner="other")])
    assert numbers((await newer).events) == [1]


async def test_two_clients_wait_beside_each_other() -> None:
    log = log_of()
    polls = [asyncio.create_task(log.poll(call(wait_s=10.0, client_id=name))) for name in ("a", "b")]
    await turns()
    log.publish([event(1, owner="a"), event(2, owner="b")])
    assert [numbers(reply.events) for reply in await asyncio.gather(*polls)] == [[1], [2]]


async def test_a_reader_that_goes_away_leaves_no_trace() -> None:
    log = log_of()
    poll = asyncio.create_task(log.poll(call(wait_s=10.0)))
    await turns()
    poll.cancel()
    await asyncio.wait([poll])
    assert list(log._parked) == []
    log.publish([event(1)])
    log.publish([])
    assert log.last == 1


# --- submits that wait a moment for their results --------------------------------------------------------------------


async def test_who_lingers_gets_the_ends_of_its_jobs_as_soon_as_all_have_ended() -> None:
    log = log_of()
    lingering = asyncio.create_task(log.linger("me", ["job-2", "job-3"], 10.0))
    await turns()
    log.publish([event(1, name="job:submitted", job_id="job-2"), event(2), event(9, job_id="other")])
    await turns()
    assert not lingering.done()
    log.publish([event(3)])
    assert [each.job_id for each in await lingering] == ["job-2", "job-3"]
    assert log._lingering == {}


async def test_who_lingers_too_long_gets_what_there_is() -> None:
    log = log_of()
    lingering = asyncio.create_task(log.linger("me", ["job-1", "job-2"], 0.02))
    await turns()
    log.publish([event(1)])
    assert numbers(await lingering) == [1]
    assert log._lingering == {}


async def test_two_that_linger_for_one_job_leave_no_trace() -> None:
    log = log_of()
    both = [asyncio.create_task(log.linger("me", ["job-1"], wait_s)) for wait_s in (0.001, 10.0)]
    await both[0]
    log.publish([event(1)])
    assert numbers(await both[1]) == [1]
    assert log._lingering == {}


@pytest.mark.parametrize(
    ("fields", "at_once"),
    [
        ({"names": ["job:completed"]}, False),  # its submit brings the event along
        ({"names": ["job:completed"], "also": ["job:failed"]}, True),
        ({}, True),  # a stream of a job's events may be open there
        ({"all_owners": True}, True),  # it listens for others too: its listeners hear by the poll
        ({"client_id": "other", "watching": ["job-1"]}, True),
        ({"client_id": "other", "all_owners": True}, True),
    ],
    ids=[
        "the same client",
        "one with a listener",
        "one with a stream",
        "a listening client",
        "a watching client",
        "another listening client",
    ],
)
async def test_only_the_poll_of_who_lingers_is_spared(fields: dict[str, object], at_once: bool) -> None:
    log = log_of()
    poll = asyncio.create_task(log.poll(call(wait_s=10.0, **fields)))
    lingering = asyncio.create_task(log.linger("me", ["job-1"], 10.0))
    await turns()
    log.publish([event(1)])
    assert numbers(await lingering) == [1]
    await turns()
    assert poll.done() is at_once
    assert numbers((await poll).events) == [1], "the answer of who lingered may have been lost"


async def test_an_event_beside_the_one_lingered_for_wakes_the_poll_at_once() -> None:
    log = log_of()
    poll = asyncio.create_task(log.poll(call(wait_s=10.0)))
    lingering = asyncio.create_task(log.linger("me", ["job-1"], 10.0))
    await turns()
    log.publish([event(1), event(2)])
    await lingering
    await turns()
    assert numbers(poll.result().events) == [1, 2]


async def test_names_asked_for_besides_come_whatever_they_are_about() -> None:
    log = log_of(event(1, owner="other"), event(2), event(3, owner="other", name="gate:closed"))
    assert numbers((await log.poll(call(also=["gate:closed"]))).events) == [2, 3]
    assert numbers((await log.poll(call(names=["job:failed"], also=["gate:closed"]))).events) == [3]
    everyones = call(names=["job:failed"], also=["gate:closed"], all_owners=True)
    assert numbers((await log.poll(everyones)).events) == [3]


async def test_an_answer_has_so_many_bytes_and_the_next_one_goes_on_behind_it() -> None:
    log = log_of(*(event(number, size=2**20) for number in range(1, 11)))
    seen: list[int] = []
    while len(seen) < 10:
        reply = await log.poll(call(after=seen[-1] if seen else 0))
        assert sum(len(each.result) for each in reply.events) <= 4 * 2**20
        assert reply.after == reply.events[-1].number
        seen += numbers(reply.events)
    assert seen == list(range(1, 11))


async def test_an_event_larger_than_an_answer_may_be_comes_alone() -> None:
    log = log_of(event(1, size=5 * 2**20), event(2))
    first = await log.poll(call())
    assert (numbers(first.events), first.after) == ([1], 1)
    assert numbers((await log.poll(call(after=1))).events) == [2]


async def test_more_readers_than_may_wait_are_refused_and_those_who_wait_are_served() -> None:
    log = log_of(event(1), max_polls=3)

    def waits(client: str, after: int = 1) -> EventsCall:
        return call(after=after, wait_s=60.0, client_id=client, all_owners=True)

    waiting = [asyncio.create_task(log.poll(waits(f"client-{number}"))) for number in range(3)]
    await turns()
    with pytest.raises(TooManyPolls, match="3 clients wait for events already"):
        await log.poll(waits("one-more"))
    assert numbers((await log.poll(waits("one-more", after=0))).events) == [1]  # which is there already
    again = asyncio.create_task(log.poll(waits("client-0")))  # in the place of its first one
    await turns()
    log.publish([event(2)])
    assert [numbers((await poll).events) for poll in [*waiting[1:], again]] == [[2]] * 3
    assert not log._parked


async def test_a_poll_that_is_sent_home_skips_nothing_that_is_published_before_it_looks() -> None:
    """Its answer may be the one that the client reads: of two copies of a call either may arrive last."""
    log = log_of()
    older = asyncio.create_task(log.poll(call(wait_s=30.0)))
    await turns()
    newer = asyncio.create_task(log.poll(call(wait_s=30.0)))
    asyncio.get_running_loop().call_soon(log.publish, [event(1)])
    assert numbers((await older).events) == [1]
    assert numbers((await newer).events) == [1]
