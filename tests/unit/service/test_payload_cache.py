"""Payloads in memory."""

from __future__ import annotations

from aiqueue.service.payload_cache import PayloadCache


def test_a_payload_is_given_once() -> None:
    cache = PayloadCache(100)
    cache.put(1, b"abc")
    assert (cache.take(1), cache.take(1)) == (b"abc", None)


def test_what_does_not_fit_is_not_kept_and_what_was_kept_stays() -> None:
    cache = PayloadCache(10)
    for seq in range(5):
        cache.put(seq, b"1234")
    assert [cache.take(seq) for seq in range(5)] == [b"1234", b"1234", None, None, None]


def test_room_comes_back_with_what_is_taken_or_dropped() -> None:
    cache = PayloadCache(4)
    cache.put(1, b"1234")
    cache.drop([1, 2])
    cache.put(3, b"1234")
    assert cache.take(3) == b"1234"
    cache.put(4, b"1234")
    assert cache.take(4) == b"1234"


def test_an_empty_payload_is_a_payload() -> None:
    cache = PayloadCache(0)
    cache.put(1, b"")
    assert cache.take(1) == b""
