"""Readers that wait are found by what they wait for."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from aiqueue.protocol import Event, EventsCall
from aiqueue.service import event_readers
from aiqueue.service.event_log import EventLog
from aiqueue.service.event_readers import Reader, Readers, filter_of
from tests.tools.turns import turns

NAMES, CLIENTS, JOBS = ["job:completed", "job:failed", "gate:closed"], ["a", "b", ""], ["j1", "j2", ""]


def event(number: int = 1, name: str = "job:completed", job_id: str = "j1", owner: str = "a") -> Event:
    return Event(number, name, 0.0, job_id, owner, "", "", "", "", 2, 0, 0.0, 0.0, 0)


calls = st.builds(
    EventsCall,
    st.sampled_from(["a", "b", "c", "d"]),
    st.just(0),
    names=st.lists(st.sampled_from(NAMES), max_size=2),
    all_owners=st.booleans(),
    watching=st.lists(st.sampled_from(JOBS), max_size=2),
    also=st.lists(st.sampled_from(NAMES), max_size=2),
)
events = st.builds(event, st.just(1), st.sampled_from(NAMES), st.sampled_from(JOBS), st.sampled_from(CLIENTS))


@given(asked=st.lists(calls, max_size=6), happens=events, gone=st.integers(0, 6))
@hypothesis_settings(deadline=None)
def test_whoever_wants_an_event_is_found_and_nobody_who_left(
    asked: list[EventsCall], happens: Event, gone: int
) -> None:
    loop = asyncio.new_event_loop()
    readers = Readers()
    there: dict[str, Reader] = {}
    for call in asked:
        readers.pop(call.client_id)
        there[call.client_id] = Reader(call, filter_of(call), loop.create_future(), patient_until=0.0)
        readers.add(there[call.client_id])
    for client_id in list(there)[:gone]:
        readers.remove(there.pop(client_id))
    loop.close()
    found = set(readers.of(happens))
    assert found <= set(there.values())
    assert {reader for reader in found if reader.wants(happens)} == {
        reader for reader in there.values() if reader.wants(happens)
    }
    for reader in there.values():
        readers.remove(reader)
    assert not readers._by_job
    assert not readers._by_name
    assert not readers._of_all


async def test_an_event_is_shown_to_its_owner_and_not_to_thousands_of_others() -> None:
    log = EventLog(next_number=1)
    polls = [
        asyncio.create_task(log.poll(EventsCall(f"client-{n}", 0, names=["job:completed"], wait_s=60.0)))
        for n in range(2_000)
    ]
    await turns()
    looks = 0
    for reader in log._parked._by_client.values():
        inner = reader.wants

        def counting(happened: Event, inner: event_readers.Filter = inner) -> bool:
            nonlocal looks
            looks += 1
            return inner(happened)

        reader.wants = counting
    log.publish([event(n, owner="client-7") for n in range(1, 101)])
    reply = await polls[7]
    assert [each.number for each in reply.events] == list(range(1, 101))
    assert looks == 100, "one for each event"
    log.close()
    await asyncio.gather(*polls)


async def test_a_poll_that_waited_in_vain_does_not_look_at_what_it_was_shown(monkeypatch: object) -> None:
    log = EventLog(next_number=1)
    waiting = asyncio.create_task(log.poll(EventsCall("idle", 0, names=["job:completed"], wait_s=60.0)))
    await turns()
    looks: list[int] = []
    log.publish([event(n, owner="other") for n in range(1, 5_001)])
    inner = log._collect

    def counting(call: EventsCall, wants: event_readers.Filter, first: int = 0) -> object:
        return inner(call, lambda each: looks.append(each.number) or wants(each), first)  # type: ignore[func-returns-value]

    log._collect = counting  # type: ignore[assignment, method-assign]
    log.close()
    reply = await waiting
    assert (reply.events, reply.after, looks) == ([], 5_000, [])
