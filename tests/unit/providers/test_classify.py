"""Which error a status, a body or a broken connection becomes."""

from __future__ import annotations

import pickle
from typing import Any

import httpx
import httpx2
import openai
import pytest

from aiqueue.errors import (
    AuthenticationFailed,
    ContentRefused,
    ContextLengthExceeded,
    InvalidRequest,
    JobError,
    JobTimeout,
    MalformedResponse,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    RateLimited,
)
from aiqueue.providers.classify import classify, from_answer

NOW = 1_700_000_000.0
SENT = httpx2.Request("POST", "http://provider/v1")


def answered(status: int, body: object = None, **headers: str) -> JobError:
    return from_answer(status, headers, body, provider="p", now=NOW)


def said(message: str, **rest: Any) -> dict[str, Any]:
    return {"error": {"message": message} | rest}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, MalformedResponse),
        (304, MalformedResponse),
        (400, InvalidRequest),
        (401, AuthenticationFailed),
        (402, AuthenticationFailed),
        (403, AuthenticationFailed),
        (404, InvalidRequest),
        (405, InvalidRequest),
        (408, ProviderServerError),
        (409, ProviderServerError),
        (413, InvalidRequest),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, ProviderServerError),
        (502, ProviderServerError),
        (503, ProviderServerError),
        (504, ProviderServerError),
        (529, ProviderServerError),
        (599, ProviderServerError),
    ],
)
def test_a_status_becomes_its_error(status: int, kind: type[JobError]) -> None:
    error = answered(status)
    assert type(error) is kind
    assert error.status == status
    assert str(error) == f"Provider p: HTTP {status}"


@pytest.mark.parametrize(
    "body",
    [
        said("too big", code="context_length_exceeded"),
        said("This model's maximum context length is 4096 tokens. However, you requested 5000", code=400),
        said("prompt is too long: 212345 tokens > 200000 maximum", type="invalid_request_error"),
        said("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
        said("the request exceeds the available context size", type="exceed_context_size_error"),
        {"error": "input length exceeds the context length"},
        {"object": "error", "message": "maximum context length is 2048 tokens", "code": 400},
    ],
)
def test_a_request_beyond_the_context_is_told_apart(body: object) -> None:
    assert type(answered(400, body)) is ContextLengthExceeded


@pytest.mark.parametrize(
    "body",
    [
        said("The response was filtered", code="content_filter"),
        said("Your request was rejected by our safety system.", code="moderation_blocked"),
        said("Output blocked by content filtering policy", type="invalid_request_error"),
        said("This request violates our usage policy", type="invalid_request_error"),
    ],
)
def test_refused_content_is_told_apart(body: object) -> None:
    assert type(answered(400, body)) is ContentRefused


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (said("no such model"), "no such model"),
        ({"error": "no such model"}, "no such model"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["body", "n"], "msg": "Input should be 1", "input": "PROMPT"}]}, "Input should be 1"),
    ],
)
def test_the_message_is_found_where_servers_put_it(body: object, message: str) -> None:
    text = str(answered(404, body))
    assert message in text
    assert "PROMPT" not in text


@pytest.mark.parametrize(
    "body", [None, "<html>", [], {"error": None}, {"error": []}, {"error": {"message": {}}}, {"a": 1}]
)
def test_a_body_without_a_message_is_not_quoted(body: object) -> None:
    assert str(answered(500, body)) == "Provider p: HTTP 500"


def test_a_rate_limit_says_how_long_to_wait() -> None:
    headers = {"x-ratelimit-reset-tokens": "6m0s", "x-request-id": "req_1"}
    error = from_answer(429, headers, said("slow down"), provider="p", now=NOW)
    assert (error.retry_after_s, error.request_id) == (360.0, "req_1")


def test_an_overloaded_server_that_says_when_to_come_back_is_heard() -> None:
    assert from_answer(529, {"retry-after": "9"}, None, provider="p", now=NOW).retry_after_s == 9.0


def test_an_error_without_retry_asks_for_no_wait() -> None:
    assert from_answer(400, {"retry-after": "9"}, None, provider="p", now=NOW).retry_after_s is None


def test_the_request_id_may_stand_in_the_body() -> None:
    assert answered(500, said("x") | {"request_id": "req_2"}).request_id == "req_2"


def test_a_huge_message_is_capped_and_survives_pickling() -> None:
    error = answered(400, said("x" * 1_000_000))
    assert len(str(error)) < 2_100
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (caused(openai.APITimeoutError(SENT), httpx2.ReadTimeout("")), JobTimeout, "timeout"),
        (caused(openai.APITimeoutError(SENT), httpx2.WriteTimeout("")), JobTimeout, "timeout"),
        (caused(openai.APITimeoutError(SENT), httpx2.ConnectTimeout("")), ProviderConnectionError, "timeout"),
        (caused(openai.APITimeoutError(SENT), httpx2.PoolTimeout("")), ProviderConnectionError, "timeout"),
        (openai.APITimeoutError(SENT), JobTimeout, "timeout"),
        (httpx.ReadTimeout("slow"), JobTimeout, "timeout"),
        (httpx.ConnectTimeout("slow"), ProviderConnectionError, "timeout"),
        (TimeoutError(), JobTimeout, "timeout"),
        (httpx.ConnectError("refused"), ProviderConnectionError, "refused"),
        (httpx.RemoteProtocolError("peer closed connection"), ProviderConnectionError, "peer closed"),
        (ConnectionResetError(104, "reset by peer"), ProviderConnectionError, "reset by peer"),
        (
            caused(openai.APIConnectionError(request=SENT), OSError(111, "Connection refused")),
            ProviderConnectionError,
            "Connection refused",
        ),
        (openai.OpenAIError("odd"), ProviderError, "odd"),
    ],
)
def test_trouble_without_an_answer_becomes_its_error(error: Exception, kind: type[JobError], words: str) -> None:
    found = classify(error, provider="p", now=NOW)
    assert type(found) is kind
    assert str(found).startswith("Provider p: ")
    assert words in str(found)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_status_error_of_httpx_is_read_like_an_sdks(library: Any) -> None:
    sent = library.Request("GET", "http://provider")
    response = library.Response(429, request=sent, headers={"retry-after": "3"}, json=said("slow down"))
    found = classify(library.HTTPStatusError("429", request=sent, response=response), provider="p", now=NOW)
    assert isinstance(found, RateLimited)
    assert found.retry_after_s == 3.0
    assert str(found) == "Provider p: HTTP 429: slow down"


def test_a_key_in_the_words_of_a_broken_connection_is_taken_out() -> None:
    found = classify(httpx.ConnectError("http://user:hunter2@proxy and canary"), provider="p", now=NOW, secret="canary")
    assert "hunter2" not in str(found)
    assert "canary" not in str(found)
