"""What a request may cost, and what it must look like before anyone reads its body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from aiqueue.errors import JournalUnavailable, QueueFull, QueueUnavailable
from serve.limits import EdgeLimits
from tests.http.conftest import MAX_BODY_BYTES, chat, fields_of, is_problem, served
from tests.http.fakes import BrokenAdapter, DictAdapter, unavailable

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("length", [str(MAX_BODY_BYTES + 1), "9" * 5_000])
async def test_a_body_whose_length_is_over_the_limit_is_not_read(client: httpx.AsyncClient, length: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    headers = JSON | {"content-length": length}
    response = await client.post("/ai/jobs", content=body(), headers=headers)
    assert is_problem(response, 413, "payload_too_large")
    assert fields_of(response) == ["body"]
    assert response.headers["connection"] == "close"


async def test_a_stream_without_length_is_cut_at_the_limit(client: httpx.AsyncClient) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000
            yield b" " * 1_000

    response = await client.post("/ai/jobs", content=body(), headers=JSON)
    assert is_problem(response, 413, "payload_too_large")
    assert sent <= MAX_BODY_BYTES + 2_000


async def test_a_body_of_exactly_the_limit_is_read(client: httpx.AsyncClient) -> None:
    response = await client.post("/ai/jobs", content=b" " * MAX_BODY_BYTES, headers=JSON)
    assert is_problem(response, 400, "invalid_input")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip"])
async def test_a_compressed_body_is_refused(client: httpx.AsyncClient, encoding: str) -> None:
    response = await client.post("/ai/jobs", json={"payload": chat()}, headers={"content-encoding": encoding})
    assert is_problem(response, 415, "unsupported_media_type")
    assert encoding in response.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 202),
        ({"content-type": "Application/JSON; charset=utf-8"}, 202),
        ({"content-type": "application/vnd.api+json"}, 202),
        ({"content-encoding": "identity", "content-type": "application/json"}, 202),
        ({}, 202),
        ({"origin": "http://localhost:3000"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
    ],
)
async def test_only_what_says_it_is_json_is_read_as_json(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    raw = httpx.Request("POST", "http://test", json={"payload": chat()}).content
    response = await client.post("/ai/jobs", content=raw, headers=headers)
    assert response.status_code == status
    assert status == 202 or is_problem(response, 415, "unsupported_media_type")


async def test_a_queue_that_never_answers_ends_at_the_deadline(adapter: DictAdapter) -> None:
    adapter.hang = True
    async with served(adapter, deadline_s=0.01) as client:
        response = await client.post("/ai/jobs", json={"payload": chat()}, headers={"x-request-timeout-seconds": "0"})
    assert is_problem(response, 503, "queue_unavailable")
    assert response.headers["retry-after"] == "1"
    assert response.json()["retryable"]


async def test_a_body_that_never_ends_is_a_timeout(adapter: DictAdapter) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with served(adapter, deadline_s=0.01) as client:
        response = await client.post("/ai/jobs", content=body(), headers=JSON)
    assert is_problem(response, 408, "body_timeout")


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (QueueUnavailable("restarting", 2.5), 503, "3"),
        (JournalUnavailable("disk full", 0.2), 503, "1"),
        (QueueFull("1000000 jobs wait", 7.0), 429, "7"),
    ],
)
async def test_a_queue_that_refuses_says_when_to_come_back(error: Any, status: int, retry_after: str) -> None:
    async with served(unavailable(error)) as client:
        response = await client.post("/ai/jobs", json={"payload": chat()})
    assert is_problem(response, status, error.kind)
    assert response.headers["retry-after"] == retry_after
    assert response.json()["retryable"]


async def test_a_bug_answers_500_without_our_insides(caplog: pytest.LogCaptureFixture) -> None:
    async with served(BrokenAdapter()) as client:
        response = await client.get("/ai/stats")
    assert is_problem(response, 500, "internal")
    assert "secret detail" not in response.text
    assert "secret detail" in caplog.text


async def test_a_client_that_hangs_up_gets_no_answer_and_does_no_harm(adapter: DictAdapter) -> None:
    sent: list[object] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        from starlette.requests import Request

        await Request(scope, receive).body()

    async def hang_up() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await EdgeLimits(application, max_body_bytes=10)(scope, hang_up, send)
    assert not sent


async def test_an_error_after_the_answer_began_breaks_the_connection() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("late")

    async def send(message: object) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(KeyError, match="late"):
        await EdgeLimits(application, max_body_bytes=10)(scope, None, send)  # type: ignore[arg-type]
