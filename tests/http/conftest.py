"""The application over ASGI, in this process, with a queue in a dict behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from aiqueue.client import event_feed, event_stream
from aiqueue.http_config import HttpConfig
from serve.app import create_app
from tests.http.fakes import DictAdapter
from tests.http.rig import Rig

MAX_BODY_BYTES = 100_000


@pytest.fixture
def adapter() -> DictAdapter:
    """Return the queue behind ``client``."""
    return DictAdapter()


@pytest.fixture
async def client(adapter: DictAdapter) -> AsyncIterator[httpx.AsyncClient]:
    """Return an HTTP client of the application."""
    async with served(adapter) as client:
        yield client


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """Return a system without a worker."""
    monkeypatch.setattr(event_stream, "_RETRY_S", 0.0)
    monkeypatch.setattr(event_feed, "_RETRY_S", 0.0)
    async with Rig() as made, made.serving():
        made.adapter = await made.client()
        yield made


@asynccontextmanager
async def served(adapter: DictAdapter, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve ``adapter`` over ASGI for the length of the block. An exception that escapes fails the test."""
    app = create_app(lambda: adapter, HttpConfig(max_body_bytes=MAX_BODY_BYTES), **options)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        yield client


def chat(**changed: Any) -> dict[str, Any]:
    """Return a chat payload with fields changed; a field changed to ``...`` is left out."""
    payload = {
        "type": "chat_completion",
        "provider": "openai",
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
    } | changed
    return {key: value for key, value in payload.items() if value is not ...}


def fields_of(response: httpx.Response) -> list[str]:
    """Return the names of the fields that a problem complains of."""
    return [item["field"] for item in response.json()["errors"]]


def is_problem(response: httpx.Response, status: int, code: str) -> bool:
    """Tell whether the answer is the problem expected, complete and well-formed."""
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance", "error", "code", "retryable"} <= set(body)
    assert body["status"] == response.status_code
    assert body["error"]
    return (response.status_code, body["code"]) == (status, code)
