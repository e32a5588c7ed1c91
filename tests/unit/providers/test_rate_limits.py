"""The wait that a refusal asks for."""

from __future__ import annotations

import pytest

from aiqueue.providers.rate_limits import MAX_WAIT_S, asked_wait_s, duration_s, retry_after_s

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1000000000"}, MAX_WAIT_S),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "\u0661"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "1e1"}, 10.0),
        ({"x-ratelimit-reset-tokens": "\u0661s"}, None),
        ({"retry-after": "1" * 400}, MAX_WAIT_S),
        ({"x-ratelimit-reset-requests": f"{'9' * 309}s{'9' * 309}s"}, MAX_WAIT_S),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-reset-tokens": "12"}, 12.0),
        ({"X-RateLimit-Reset-Tokens": "12s"}, 12.0),
        ({"x-ratelimit-reset-tokens": "later"}, None),
        ({"anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:25Z"}, 5.0),
        ({"retry-after": "1", "x-ratelimit-reset-requests": "6m0s"}, 1.0),
    ],
)
def test_headers_ask_for_a_wait(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after_s(headers, now=NOW) == (None if wait is None else pytest.approx(wait))


def test_of_two_limits_the_one_that_is_used_up_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-remaining-tokens": "90000",
        "x-ratelimit-reset-tokens": "1s",
    }
    assert retry_after_s(headers, now=NOW) == 30.0


def test_of_two_limits_with_something_left_the_first_reset_counts() -> None:
    headers = {
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "2023-11-14T22:14:20Z",
        "anthropic-ratelimit-input-tokens-remaining": "10",
        "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:22Z",
    }
    assert retry_after_s(headers, now=NOW) == 2.0


def test_reset_headers_are_no_request_to_wait_on_other_errors() -> None:
    assert asked_wait_s({"x-ratelimit-reset-requests": "6m0s"}, now=NOW) is None


@pytest.mark.parametrize("text", ["", "s", "1h soon", "1y"])
def test_no_duration_is_none(text: str) -> None:
    assert duration_s(text) is None
