"""Answers that their provider marks as failed, or that lack a part: none of them is a result."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiqueue.errors import MalformedResponse, ProviderServerError, RateLimited
from aiqueue.providers.openai_format import answer_of
from aiqueue.providers.remote import Reply
from tests.tools.said_answers import as_stream, outcome_of
from tests.unit.providers.conftest import request

DIED = {"code": 502, "message": "Upstream died"}
#: What a choice says beside its half text; the error of a stream, and words of its message.
MARKS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"finish_reason": "error", "error": DIED}, ProviderServerError, "HTTP 502: Upstream died"),
    ({"finish_reason": None, "error": DIED}, ProviderServerError, "HTTP 502: Upstream died"),
    ({"finish_reason": "stop", "error": {"code": 429, "message": "slow down"}}, RateLimited, "HTTP 429: slow down"),
    ({"finish_reason": "length", "error": "Upstream died"}, ProviderServerError, "Upstream died"),
    ({"finish_reason": "error"}, ProviderServerError, "broken off (error)"),
    ({"finish_reason": "abort"}, ProviderServerError, "broken off (abort)"),
    ({"finish_reason": "insufficient_system_resource"}, ProviderServerError, "off (insufficient_system_resource)"),
    ({"finish_reason": "network_error"}, ProviderServerError, "broken off (network_error)"),
]


@pytest.mark.parametrize("is_behind", [False, True], ids=["alone", "behind a whole choice"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("mark", "kind", "said"), MARKS)
async def test_a_choice_that_its_provider_marks_as_failed_is_no_result(
    mark: dict[str, Any], kind: type[Exception], said: str, streams: bool, is_behind: bool
) -> None:
    part = "delta" if streams else "message"
    whole = [{"index": 0, part: {"content": "Hi"}, "finish_reason": "stop"}] if is_behind else []
    body = {"choices": [*whole, {"index": len(whole), part: {"content": "half an ans"}, **mark}]}
    events = [json.dumps(body).encode()]
    outcome = await outcome_of("openai", as_stream(events) if streams else events[0], stream=streams)
    assert outcome.failure
    assert outcome.failure.kind == kind.kind  # type: ignore[attr-defined]
    assert said in outcome.failure.message
    assert outcome.failure.retryable


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        ([{"input": "my prompt"}], "HTTP 500"),
        ({"message": {"input": "my prompt"}}, "HTTP 500"),
        ({"code": 429, "metadata": {"raw": "my prompt"}}, "HTTP 429"),
        ({"type": "invalid_request_error", "detail": "no such model"}, "HTTP 400: no such model"),
        (True, "HTTP 500"),
        (5, "HTTP 500"),
    ],
)
async def test_an_error_in_an_answer_is_of_one_kind_streamed_or_not_and_quotes_only_messages(
    error: Any, said: str, kind: str, streams: bool
) -> None:
    content = json.dumps({"error": error}).encode()
    outcome = await outcome_of(kind, as_stream([content]) if streams else content, stream=streams)
    assert outcome.failure
    assert outcome.failure.message == f"Provider p: {said}"
    assert outcome.failure.status == int(said[5:8])


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("error", [{"type": "overloaded_error", "message": "Overloaded"}, "Overloaded"])
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_an_error_in_an_answer_has_the_id_that_it_gives_the_call(kind: str, error: Any, streams: bool) -> None:
    event = {"type": "error", "error": error, "request_id": "req_7"}
    content = json.dumps(event).encode()
    outcome = await outcome_of(kind, as_stream([content]) if streams else content, stream=streams)
    assert outcome.failure
    assert (outcome.failure.kind, outcome.failure.request_id) == (ProviderServerError.kind, "req_7")
    assert outcome.failure.message.endswith("Overloaded")


@pytest.mark.parametrize("reason", ["stop", "length", "eos", [], {"type": "stop"}, 3])
async def test_any_other_reason_to_end_breaks_nothing_off(reason: object) -> None:
    body = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": reason}]}
    outcome = await outcome_of("openai", json.dumps(body).encode())
    assert outcome.failure is None or "broken off" not in outcome.failure.message


@pytest.mark.parametrize("given", ["a", ["a"], ["a", "b", "c"]])
@pytest.mark.parametrize("difference", [-1, 1])
def test_vectors_that_are_fewer_or_more_than_the_texts_are_no_result(given: str | list[str], difference: int) -> None:
    count = (1 if isinstance(given, str) else len(given)) + difference
    with pytest.raises(MalformedResponse, match=r"vectors for|>= 1|length"):
        answer_of(_vectors(list(range(count))), request("embedding", input=given), provider="p")


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [None, None, None], [0, 0, 0]])
def test_vectors_stand_in_the_order_of_their_texts(order: list[int | None]) -> None:
    answer = answer_of(_vectors(order), request("embedding", input=["a", "b", "c"]), provider="p")
    found = [vector.embedding for vector in answer.response.data]
    assert found == ([[0.0], [1.0], [2.0]] if len(set(order)) == 1 else [[float(order.index(at))] for at in range(3)])


def _vectors(order: list[Any]) -> Reply:
    data = [{"index": index, "embedding": [float(at)]} for at, index in enumerate(order)]
    return Reply({"data": data, "usage": None}, None)
