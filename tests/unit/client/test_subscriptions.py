"""What each stream of a process is given, and what the one long poll must ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.client import subscriptions
from aiqueue.client.subscriptions import Interest, Subscription, Subscriptions
from aiqueue.protocol import Event

JOBS, NAMES = ("a", "b", "c"), ("job:completed", "job:failed", "gate:closed")


def event(number: int, name: str = "job:completed", job_id: str = "a", size: int = 0) -> Event:
    return Event(number, name, 1.0, job_id, "me", "", "t", "p", "m", 0, 1, 0.0, 0.0, 1, result=b"x" * size)


def joined(*interests: Interest) -> tuple[Subscriptions, list[Subscription]]:
    """Return subscriptions that the poll knows, at cursor 0."""
    everyone = Subscriptions(lambda: None)
    made = [Subscription(interest) for interest in interests]
    for subscription in made:
        everyone.add(subscription)
    everyone.join(everyone.joining(), 0)
    return everyone, made


def taken(subscription: Subscription, cursor: int = 0) -> list[int]:
    return [each.number for each in subscription.take(cursor, 100)]


def sets(values: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values))


interests = st.builds(Interest, st.none() | sets(JOBS), sets(NAMES), sets(NAMES))


def wants(interest: Interest, found: Event) -> bool:
    """The rule in one line, without any index."""
    of_jobs = interest.jobs is None or found.job_id in interest.jobs
    return (of_jobs and (not interest.names or found.name in interest.names)) or found.name in interest.also


@given(st.lists(interests, max_size=4), st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(JOBS)), max_size=8))
def test_each_is_given_what_it_wants_and_nothing_else(asked: list[Interest], happened: list[tuple[str, str]]) -> None:
    everyone, made = joined(*asked)
    events = [event(number, name, job_id) for number, (name, job_id) in enumerate(happened, 1)]
    for each in events:
        everyone.publish(each)
    for subscription in made:
        assert taken(subscription) == [each.number for each in events if wants(subscription.interest, each)]


@given(interests, interests, st.sampled_from(NAMES), st.sampled_from(JOBS))
def test_an_interest_covers_another_only_if_nothing_is_missing(
    wide: Interest, narrow: Interest, name: str, job_id: str
) -> None:
    if wide.covers(narrow) and not wide.names and wants(narrow, event(1, name, job_id)):
        assert wants(wide, event(1, name, job_id))


@given(st.lists(interests, max_size=4), st.data())
def test_who_left_is_asked_for_no_more(asked: list[Interest], data: st.DataObject) -> None:
    everyone, made = joined(*asked)
    for subscription in data.draw(st.permutations(made)):
        everyone.change(subscription, data.draw(interests))
        everyone.remove(subscription)
    assert (everyone.want_all, everyone.wanted(), bool(everyone)) == (False, (set(), set()), False)


def test_a_full_buffer_is_emptied_and_its_reader_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "BUFFER", 3)
    everyone, (slow,) = joined(Interest())
    for number in range(1, 6):
        everyone.publish(event(number))
    assert slow.lags(3)
    assert not slow.lags(4)
    assert taken(slow, 4) == [5]


def test_a_buffer_holds_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "BUFFER_BYTES", 100)
    everyone, (slow,) = joined(Interest())
    everyone.publish(event(1, size=200))
    assert not slow.lags(0)
    assert taken(slow) == [1]
    everyone.publish(event(2, size=60))
    everyone.publish(event(3, size=60))
    assert slow.lags(2)
    everyone.publish(event(4, size=100))
    assert taken(slow, 3) == [4]


def test_who_follows_more_is_given_nothing_until_the_poll_asks_for_it() -> None:
    changes: list[str] = []
    everyone = Subscriptions(lambda: changes.append("asked"))
    everyone.add(subscription := Subscription(Interest(frozenset("a"))))
    everyone.join(everyone.joining(), 5)
    everyone.change(subscription, Interest(frozenset("ab")))
    everyone.publish(event(6))
    assert (subscription.joined, taken(subscription, 5), changes) == (False, [], ["asked", "asked"])
    everyone.join(everyone.joining(), 8)
    assert subscription.lags(5)
    everyone.change(subscription, Interest(frozenset("b")))
    everyone.publish(event(9, job_id="a"))
    everyone.publish(event(10, job_id="b"))
    assert (subscription.joined, taken(subscription, 8), changes) == (True, [10], ["asked", "asked"])
