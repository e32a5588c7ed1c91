"""A replica that starts before its queue does."""

from __future__ import annotations

import httpx
import pytest

from aiqueue.errors import QueueFault, QueueNotRunning
from aiqueue.http_config import HttpConfig
from serve import joining
from serve.app import create_app
from tests.http.conftest import chat, is_problem, served
from tests.http.fakes import DictAdapter
from tests.tools.asgi_streams import SocketClient
from tests.tools.turns import turns, until


class LateAdapter(DictAdapter):
    """An adapter whose queue is not there until ``is_there``."""

    is_there = False
    absence: Exception = QueueNotRunning("no queue is running in the Ray namespace 'team'")

    async def start(self) -> None:
        if not self.is_there:
            raise self.absence
        await super().start()


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> LateAdapter:
    monkeypatch.setattr(joining, "RETRY_S", 0.0)
    return LateAdapter()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/ai/stats", None),
        ("POST", "/ai/jobs", {"payload": chat()}),
        ("POST", "/ai/jobs/batch", {"jobs": [chat()]}),
        ("GET", "/ai/batches/b-1", None),
        ("GET", "/ai/events", None),
        ("GET", "/ai/schedules", None),
        ("GET", "/ai/dead-letters", None),
    ],
)
async def test_without_a_queue_each_route_says_so(
    client: httpx.AsyncClient, method: str, path: str, body: object
) -> None:
    response = await client.request(method, path, json=body)
    assert is_problem(response, 503, "queue_not_running")
    assert "'team'" in response.json()["error"]
    assert response.headers["retry-after"] == "1"


async def test_without_a_queue_the_front_lives_and_is_not_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/ai/live")).status_code == 200
    assert is_problem(await client.get("/ai/health"), 503, "queue_unavailable")


@pytest.mark.parametrize("path", ["/ai/ws", "/socket.io/"])
async def test_without_a_queue_a_socket_is_refused(adapter: LateAdapter, path: str) -> None:
    app = create_app(lambda: adapter, HttpConfig())
    async with app.router.lifespan_context(app), SocketClient(app, path, {}) as socket:
        assert socket.opened["type"] == "websocket.http.response.start"
        assert socket.opened["status"] == 503


async def test_a_queue_that_comes_later_is_found(adapter: LateAdapter, client: httpx.AsyncClient) -> None:
    await turns()
    adapter.is_there = True
    await until(lambda: adapter.started)
    assert (await client.post("/ai/jobs", json={"payload": chat()})).status_code == 202
    await turns()
    assert adapter.started == 1


async def test_a_replica_that_still_looks_for_its_queue_ends_when_it_is_told(adapter: LateAdapter) -> None:
    async with served(adapter):
        await turns()
    assert (adapter.started, adapter.stopped) == (0, 1)


async def test_a_queue_that_refuses_the_replica_is_asked_again(
    adapter: LateAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "absence", QueueFault("hello"))
    async with served(adapter) as client:
        assert is_problem(await client.get("/ai/stats"), 503, "queue_unavailable")
        adapter.is_there = True
        await until(lambda: adapter.started)


async def test_a_bug_ends_the_replica(adapter: LateAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "absence", KeyError("bug"))
    with pytest.raises(KeyError):
        async with served(adapter):
            pass
