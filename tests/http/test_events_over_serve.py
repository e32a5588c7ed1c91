"""Events the whole way: through HAProxy and a Serve replica, with readers as the network has them."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import socketio
from websockets.asyncio.client import connect

from serve.streams import STUCK_S
from tests.http.test_over_serve import base_url, payload
from tests.tools.asgi_streams import SseEvent, parse_events

__all__ = ["base_url", "payload"]

LIMIT_S = 60.0


async def read(client: httpx.AsyncClient, address: str, count: int, last: int | None = None) -> list[SseEvent]:
    """Return the first ``count`` events of a stream, or all if it ends before; then hang up."""
    headers = {} if last is None else {"last-event-id": str(last)}
    seen: list[SseEvent] = []
    async with client.stream("GET", address, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = ""
        async for piece in response.aiter_text():
            *whole, text = (text + piece).split("\n\n")
            seen += parse_events("\n\n".join(whole))
            if len(seen) >= count:
                break
    return seen[:count]


@pytest.fixture
async def client(base_url: str) -> Any:
    """Return a client of the running system."""
    async with httpx.AsyncClient(base_url=base_url, timeout=LIMIT_S, trust_env=False) as made:
        yield made


async def submit(client: httpx.AsyncClient, payload: dict[str, Any], count: int) -> list[str]:
    """Submit jobs; return their ids."""
    answer = await client.post("/ai/jobs/batch", json={"jobs": [payload] * count})
    ids: list[str] = answer.json()["jobIds"]
    return ids


async def test_events_stream_and_resume_over_serve(client: httpx.AsyncClient, payload: dict[str, Any]) -> None:
    async with asyncio.timeout(LIMIT_S):
        (first,) = await submit(client, payload, 1)
        end = (await read(client, f"/ai/jobs/{first}/events", 10))[-1]
        assert end.name == "job:completed"
        await submit(client, payload, 20)
        seen: list[int] = []
        while len(seen) < 60:
            seen += [event.id for event in await read(client, "/ai/events", 12, last=seen[-1] if seen else end.id)]
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert seen[0] == end.id + 1


async def test_updates_arrive_by_websocket_over_serve(
    client: httpx.AsyncClient, base_url: str, payload: dict[str, Any]
) -> None:
    address = f"ws://{urlsplit(base_url).netloc}/ai/ws"
    async with asyncio.timeout(LIMIT_S), connect(address, proxy=None) as socket:
        job_id = (await submit(client, payload, 1))[0]
        await socket.send(json.dumps({"event": "subscribe:job", "data": job_id}))
        while (heard := json.loads(await socket.recv()))["data"]["status"] not in ("completed", "failed"):
            assert heard["event"] == "job:update"
    assert heard["data"]["status"] == "completed"
    assert heard["data"]["result"]["response"]["choices"]


async def test_updates_arrive_at_a_client_of_socket_io_over_serve(
    client: httpx.AsyncClient, base_url: str, payload: dict[str, Any]
) -> None:
    updates: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    listener = socketio.AsyncClient(reconnection=False)
    listener.on("job:update", updates.put)
    async with asyncio.timeout(LIMIT_S):
        await listener.connect(base_url, transports=["websocket"])
        try:
            job_id = (await submit(client, payload, 1))[0]
            await listener.emit("subscribe:job", job_id)
            while (heard := await updates.get())["status"] not in ("completed", "failed"):
                assert heard["jobId"] == job_id
        finally:
            await listener.disconnect()
    assert heard["status"] == "completed"
    assert heard["result"]["response"]["choices"]
    refused = await client.get("/socket.io/?EIO=4&transport=polling")
    assert refused.status_code == 400


async def test_many_open_streams_leave_room_for_plain_requests(client: httpx.AsyncClient, base_url: str) -> None:
    address = f"ws://{urlsplit(base_url).netloc}/ai/ws"
    async with asyncio.timeout(LIMIT_S):
        sockets = await asyncio.gather(*(connect(address, proxy=None) for _ in range(50)))
        waits = [asyncio.create_task(read(client, "/ai/events?names=job:dead-letter", 1)) for _ in range(50)]
        answers = await asyncio.gather(*(client.get("/ai/health") for _ in range(20)))
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await asyncio.gather(*(socket.close() for socket in sockets))
    assert {answer.status_code for answer in answers} == {200}


async def read_nothing(base_url: str, stuck_s: float, *, last: str) -> tuple[int, bool]:
    """Ask for all events and read none for a while; return the bytes that come then, and whether they end too soon.

    They go on to those of the job ``last`` if the reader was not cut off.
    """
    place = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**10)
    writer.write(b"GET /ai/events?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(stuck_s)  # the fault itself
    taken, end = 0, b""
    while (piece := await reader.read(2**16)) and last.encode() not in end + piece:
        taken += len(piece)
        end = piece[-len(last) :]
    writer.close()
    return taken, not piece


@pytest.mark.slow
@pytest.mark.timeout(1_000)
async def test_a_reader_that_never_reads_is_cut_off_and_fills_no_memory(
    client: httpx.AsyncClient, base_url: str, payload: dict[str, Any]
) -> None:
    async with asyncio.timeout(15 * LIMIT_S):
        for _ in range(2):
            last = (await submit(client, payload, 10_000))[-1]
        print("submitted")
        assert (await read(client, f"/ai/jobs/{last}/events", 9))[-1].name == "job:completed"
        # It is cut off a while after all buffers are full, and how soon they are depends on the machine.
        for filling_s in (5, 60, 300):
            print(f"reads nothing for {STUCK_S + filling_s:.0f} s")
            taken, is_cut_off = await read_nothing(base_url, STUCK_S + filling_s, last=last)
            if is_cut_off:
                break
    assert is_cut_off
    print(f"{taken / 2**20:.1f} MiB were under way when the reader was cut off")
    assert taken < 16 * 2**20
    assert (await client.get("/ai/health")).status_code == 200
