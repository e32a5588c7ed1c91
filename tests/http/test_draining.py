"""The end of the HTTP front: what can end by itself does, what can't is told to, and nothing new is taken."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from aiqueue.http_config import HttpConfig
from aiqueue.testing.jobs import chat
from serve import deployment
from serve.app import create_app
from serve.draining import drain
from serve.haproxy_config import DRAIN_HEADER, DRAIN_PATH, SYSTEM_HEADER, drain_token, system_mark
from serve.haproxy_program import install
from tests.http.fakes import DictAdapter
from tests.http.rig import Rig
from tests.tools.front import SECRET, haproxy, served
from tests.tools.pool_events import eventually
from tests.tools.turns import until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A system's private folder, with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="aq-", dir="/tmp") as path:
        install(Path(path), SECRET, "haproxy")
        (Path(path) / "node").mkdir()
        yield Path(path)


async def test_streams_without_an_end_are_told_to_go_and_a_jobs_stream_goes_on_to_its_end(rig: Rig) -> None:
    job_id = await rig.adapter.submit_job(chat())
    async with (
        rig.sse("/ai/events") as all_jobs,
        rig.sse(f"/ai/jobs/{job_id}/events") as one_job,
        rig.socket() as socket,
    ):
        await until(lambda: rig.app.state.streams.open == 3)
        rig.app.state.streams.close()
        assert await socket.hear() == {"closed": 1012}
        assert await all_jobs.rest() == []
        await rig.work()
        assert [event.name for event in await one_job.rest()][-1] == "job:completed"
    async with rig.sse("/ai/events") as late:
        assert late.status == 503


async def test_only_who_knows_the_secret_may_end_the_streams_of_a_replica() -> None:
    app = create_app(DictAdapter, HttpConfig(), secret=SECRET)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        for header in ({}, {DRAIN_HEADER: SECRET}, {DRAIN_HEADER: "x"}):
            assert (await client.post(DRAIN_PATH, headers=header)).status_code == 421
        assert not app.state.streams.closing.is_set()
        answer = await client.post(DRAIN_PATH, headers={DRAIN_HEADER: drain_token(SECRET)})
    assert answer.status_code == 204
    assert app.state.streams.closing.is_set()


class Slow:
    """An application whose answers wait until they are let go, and which notes that it was told of the end."""

    def __init__(self) -> None:
        self.asked, self.told, self.released = threading.Event(), threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == DRAIN_PATH:
            self.told.set()
        elif scope["path"] == "/slow":
            self.asked.set()
            await asyncio.to_thread(self.released.wait, 60)
        headers = [(SYSTEM_HEADER.encode(), system_mark(SECRET).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"whole"})


def test_a_request_in_flight_is_answered_while_new_ones_get_503_and_then_the_wait_is_over(folder: Path) -> None:
    app, answers = Slow(), []
    with served(app) as port, haproxy(folder / "node", port) as url:
        eventually(lambda: httpx.get(f"{url}/fast", trust_env=False).status_code == 200, "HAProxy serves", 20)
        asking = threading.Thread(target=lambda: answers.append(httpx.get(f"{url}/slow", trust_env=False, timeout=60)))
        draining = threading.Thread(target=drain, args=(folder, 60.0))
        asking.start()
        assert app.asked.wait(20)
        draining.start()
        assert app.told.wait(20), "the replica was not told of the end"
        late = httpx.get(f"{url}/fast", trust_env=False)
        assert draining.is_alive(), "it did not wait for the request in flight"
        app.released.set()
        asking.join(20)
        draining.join(20)
        assert not draining.is_alive()
    assert (answers[0].status_code, answers[0].text) == (200, "whole")
    assert (late.status_code, late.headers["retry-after"]) == (503, "1")


def test_the_wait_for_requests_in_flight_ends_with_its_limit(folder: Path) -> None:
    app = Slow()
    with served(app) as port, haproxy(folder / "node", port) as url:
        eventually(lambda: httpx.get(f"{url}/fast", trust_env=False).status_code == 200, "HAProxy serves", 20)
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            asking = threading.Thread(target=lambda: client.get("/slow"))
            asking.start()
            assert app.asked.wait(20)
            drain(folder, 0.0)
            assert asking.is_alive()
            app.released.set()
            asking.join(20)


def test_a_folder_from_which_nobody_has_begun_to_serve_is_drained_at_once(tmp_path: Path) -> None:
    drain(tmp_path, 60.0)
    assert [path.name for path in tmp_path.iterdir()] == ["stopping"]


def test_the_limit_is_the_one_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waited: list[float] = []
    one = type("Status", (), {"applications": {"aiqueue-up": None}})
    monkeypatch.setattr(deployment.ray_serve, "status", lambda: one)
    monkeypatch.setattr(deployment.ray_serve, "shutdown", lambda: None)
    monkeypatch.setattr(deployment, "running_serve", lambda: None)
    monkeypatch.setattr(deployment, "drain", lambda folder, limit_s, prefix: waited.append(limit_s))
    assert deployment.shutdown("aiqueue", tmp_path, drain_s=HttpConfig(drain_s=77).drain_s)
    assert waited == [77]
