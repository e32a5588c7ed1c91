"""Configured limits of a gate: calls at once, requests and tokens a minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.engine.gates import Bucket
from aiqueue.errors import ResultTooLarge
from aiqueue.protocol import Outcome
from aiqueue.testing.jobs import completed
from tests.tools.gated_queue import gated


def test_no_more_calls_at_once_than_max_concurrent_over_all_workers() -> None:
    queue = gated(max_concurrent=3)
    queue.submit(*"abcdef")
    assert (queue.claim(2), queue.claim(2, worker="worker-2")) == (["a", "b"], ["c"])
    assert queue.claim(2, worker="worker-2") == []
    queue.exchange(completed("a"), slots=0)
    assert queue.claim(5, worker="worker-2") == ["d"]


def test_a_lost_worker_gives_its_calls_back() -> None:
    queue = gated(max_concurrent=2)
    queue.submit(*"abc")
    queue.claim(2)
    queue.lose(crashed=False)
    assert queue.claim(3, worker="worker-2") == ["a", "b"]


def test_requests_per_minute_are_spent_and_come_back_steadily() -> None:
    queue = gated(requests_per_minute=60.0)
    queue.submit(*(f"job-{number}" for number in range(100)))
    assert len(queue.claim(100)) == 60
    assert queue.claim(10) == []
    due = queue.engine.next_due(now=queue.clock.now())
    assert due == pytest.approx(queue.clock.now() + 1.0)
    queue.tick(10.001)
    assert len(queue.claim(100)) == 10


def test_less_than_one_request_a_minute_still_lets_one_through() -> None:
    queue = gated(requests_per_minute=0.5)
    queue.submit("a", "b")
    assert queue.claim(2) == ["a"]
    queue.exchange(completed("a"), slots=0)
    queue.tick(119.0)
    assert queue.claim(2) == []
    queue.tick(1.001)
    assert queue.claim(2) == ["b"]


def test_tokens_are_counted_when_known_and_an_overdraft_is_waited_out() -> None:
    queue = gated(tokens_per_minute=600.0)
    queue.submit(*"abc")
    queue.claim()
    queue.exchange(Outcome("a", 1, b"{}", tokens=650), slots=0)
    assert queue.claim() == []
    queue.tick(5.0)
    assert queue.claim() == []
    queue.tick(0.2)
    assert queue.claim() == ["b"]


@pytest.mark.parametrize("end", ["cancelled", "result too large"])
def test_tokens_count_however_the_call_ended(end: str) -> None:
    queue = gated(tokens_per_minute=600.0)
    queue.submit(*"ab")
    queue.claim()
    failure = None if end == "cancelled" else ResultTooLarge("the result has 20 bytes").to_failure()
    queue.exchange(Outcome("a", 1, failure=failure, cancelled=end == "cancelled", tokens=650), slots=0)
    assert queue.claim() == []
    queue.tick(5.2)
    assert len(queue.claim()) == 1


@given(st.floats(0.1, 1e6), st.lists(st.tuples(st.floats(0, 600), st.floats(0, 1e4)), max_size=30))
def test_a_bucket_never_holds_more_than_its_size_and_is_full_again_in_time(
    per_minute: float, spends: list[tuple[float, float]]
) -> None:
    now, size = 1_000.0, max(1.0, per_minute)
    bucket = Bucket(per_minute, now=now)
    for wait, amount in spends:
        now += wait
        assert bucket.level(now) <= size
        bucket.spend(amount, now)
        now = bucket.next_at(now)
        assert bucket.level(now) >= 1.0 - 1e-3
    debt = max(0.0, size - bucket.level(now))
    assert bucket.level(now + debt / per_minute * 60.0 + 1e-3) == pytest.approx(size)
