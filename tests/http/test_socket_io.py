"""Socket.IO with its own client, through a real server on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import socketio
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from aiqueue.testing.jobs import chat
from serve import following
from serve.routes import socket_io
from serve.streams import StreamSlots
from tests.http.conftest import fields_of, is_problem
from tests.http.rig import Rig
from tests.tools.turns import until

LIMIT_S = 10.0


class Listener:
    """A client of Socket.IO that notes what it hears."""

    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self.heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.client.on("*", self._note)

    async def _note(self, event: str, data: Any) -> None:
        await self.heard.put((event, data))

    async def next(self) -> tuple[str, Any]:
        """Return what it hears next."""
        return await asyncio.wait_for(self.heard.get(), LIMIT_S)


class Server:
    """The application at an address."""

    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def listener(self) -> AsyncIterator[Listener]:
        """Return a client that is connected."""
        made = Listener()
        await made.client.connect(f"http://127.0.0.1:{self.port}", transports=["websocket"], wait_timeout=LIMIT_S)
        try:
            yield made
        finally:
            await made.client.disconnect()


@pytest.fixture
async def server(rig: Rig) -> AsyncIterator[Server]:
    """Serve the rig's application over loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(rig.app, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(running.serve([listening]))
        yield Server(listening.getsockname()[1])
        running.should_exit = True
        await asyncio.wait_for(serving, LIMIT_S)


async def test_a_subscription_shows_the_job_now_and_each_change(rig: Rig, server: Server) -> None:
    job_id = await rig.adapter.submit_job(chat())
    async with server.listener() as listener:
        await listener.client.emit("subscribe:job", job_id.upper())
        assert await listener.next() == ("job:update", {"jobId": job_id, "status": "queued"})
        await rig.work()
        assert (await listener.next())[1]["status"] == "processing"
        event, end = await listener.next()
    assert (event, end["jobId"], end["status"]) == ("job:update", job_id, "completed")
    assert end["result"]["response"]["choices"][0]["message"]["content"] == "Hi there"


async def test_unsubscribed_and_unknown_jobs_and_events_by_name(rig: Rig, server: Server) -> None:
    first, second = await rig.adapter.submit_jobs([chat(), chat()])
    async with server.listener() as listener:
        for job_id in (first, second, "\ud800", "nothing"):
            await listener.client.emit("subscribe:job", job_id)
            heard = await listener.next()
        assert (heard[0], heard[1]["code"]) == ("job:error", "job_not_found")
        await listener.client.call("unsubscribe:job", first, timeout=LIMIT_S)
        await listener.client.call("subscribe:events", ["worker-pool:*"], timeout=LIMIT_S)
        await rig.adapter.cancel_job(first)
        await rig.transport.announce("worker-pool:scaled-up", {"previous_size": 1, "new_size": 2})
        await rig.adapter.cancel_job(second)
        event, data = await listener.next()
        assert (event, data["previousSize"], data["newSize"]) == ("worker-pool:scaled-up", 1, 2)
        event, data = await listener.next()
        assert (event, data["jobId"], data["status"]) == ("job:update", second, "cancelled")


async def test_a_client_that_leaves_is_let_go(rig: Rig, server: Server) -> None:
    async with server.listener() as listener:
        await listener.client.emit("subscribe:job", await rig.adapter.submit_job(chat()))
        await listener.next()
        assert (rig.app.state.streams.open, rig.followers()) == (1, True)
    await until(lambda: rig.app.state.streams.open == 0 and not rig.followers())


@pytest.mark.parametrize(
    ("event", "data"), [("subscribe:job", 3), ("subscribe:events", ["job:done"]), ("subscribe:events", "job:failed")]
)
async def test_what_is_no_message_of_the_protocol_ends_the_connection(
    rig: Rig, server: Server, event: str, data: Any
) -> None:
    async with server.listener() as listener:
        await listener.client.emit(event, data)
        assert (await listener.next())[0] == "error"
        await until(lambda: not listener.client.connected)
    await until(lambda: rig.app.state.streams.open == 0)


async def test_one_client_follows_so_many_jobs_and_no_more(
    rig: Rig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_JOBS", 2)
    async with server.listener() as listener:
        for job_id in await rig.adapter.submit_jobs([chat()] * 3):
            await listener.client.emit("subscribe:job", job_id)
        while (heard := await listener.next())[0] != "error":
            assert heard[0] == "job:update"


async def test_all_of_many_updates_arrive_through_the_window(rig: Rig, server: Server) -> None:
    async with server.listener() as listener:
        await listener.client.call("subscribe:events", ["job:submitted"], timeout=LIMIT_S)
        job_ids = await rig.adapter.submit_jobs([chat()] * 500)
        heard = [(await listener.next())[1]["jobId"] for _ in job_ids]
    assert heard == job_ids


async def test_a_reader_that_answers_no_ping_gets_a_window_and_is_cut_off(
    rig: Rig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_io, "STUCK_S", 0.2)
    address = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    async with asyncio.timeout(LIMIT_S), connect(address, proxy=None) as mute:
        assert (await mute.recv())[:1] == "0"
        await mute.send("40")
        await mute.recv()
        await mute.send('42["subscribe:events",["job:submitted"]]')
        await until(rig.followers)
        await rig.adapter.submit_jobs([chat()] * 500)
        taken: list[str] = []
        with suppress(ConnectionClosedError):
            while True:
                taken.append(str(await mute.recv()))
    events = [packet for packet in taken if packet.startswith("42")]
    assert 0 < len(events) <= socket_io.WINDOW
    await until(lambda: rig.app.state.streams.open == 0 and not rig.followers())


async def test_long_polling_is_refused_with_what_to_do(rig: Rig) -> None:
    answer = await rig.http.get("/socket.io/?EIO=4&transport=polling")
    assert is_problem(answer, 400, "invalid_input")
    assert fields_of(answer) == ["transport"]


async def test_a_page_of_another_site_and_one_client_too_many_get_no_connection(rig: Rig, server: Server) -> None:
    address = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    with pytest.raises(Exception, match="403"):
        await connect(address, proxy=None, additional_headers={"Origin": "https://elsewhere.example"})
    rig.app.state.streams = StreamSlots(1)
    async with server.listener():
        with pytest.raises(Exception, match="503"):
            await connect(address, proxy=None)
