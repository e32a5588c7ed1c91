"""A client of one of two systems that run beside each other: it notes all that it is told, by whatever way."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import socketio
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from aiqueue.ids import new_job_ids

_WAYS = ("sse", "websocket", "socket.io")


class IslandClient:
    """Submits to a system, asks for what it has submitted, and listens to the events of all jobs in three ways.

    ``mine`` are the jobs that it may have made: their ids are chosen here, so one of another system shows.
    """

    def __init__(self, name: str, url: str) -> None:
        self.mine: set[str] = set()
        self.acknowledged: list[str] = []
        self.told: Counter[str] = Counter()  #: statuses of answers, and errors without one
        self.untrue: list[str] = []
        self.heard: dict[str, set[str]] = {way: set() for way in _WAYS}  #: jobs that events were about
        self._name, self._url = name, url
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._submit, self._listen)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def strangers(self) -> dict[str, set[str]]:
        """Return the jobs of others that it heard of."""
        return {way: heard - self.mine for way, heard in self.heard.items() if heard - self.mine}

    def _submit(self) -> None:
        while not self._stopped.wait(0.02):
            (job_id,) = new_job_ids(1)
            self.mine.add(job_id)
            try:
                with httpx.Client(timeout=15.0, trust_env=False) as client:
                    body = {"payload": chat(self._name), "options": {"jobId": job_id}}
                    if self._count(client.post(f"{self._url}/ai/jobs", json=body), 202, job_id):
                        self.acknowledged.append(job_id)
                    if self.acknowledged:
                        asked = random.choice(self.acknowledged)
                        self._count(client.get(f"{self._url}/ai/jobs/{asked}"), 200, asked)
            except httpx.TransportError as error:
                self.told[type(error).__name__] += 1

    def _count(self, answer: httpx.Response, expected: int, job_id: str) -> bool:
        self.told[str(answer.status_code)] += 1
        now = answer.status_code == expected and answer.json()["jobId"] == job_id
        later = answer.status_code == 503 and "retry-after" in answer.headers
        if not now and not (later and answer.headers["content-type"] == "application/problem+json"):
            self.untrue.append(f"{answer.request.method} {answer.status_code} {answer.text[:300]}")
        return now

    def _listen(self) -> None:
        asyncio.run(self._listen_in_all_ways())

    async def _listen_in_all_ways(self) -> None:
        ways = (self._server_sent_events, self._websocket, self._socket_io)
        listening = [asyncio.create_task(self._again_and_again(way)) for way in ways]
        await asyncio.to_thread(self._stopped.wait)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)

    async def _again_and_again(self, way: Callable[[], Awaitable[None]]) -> None:
        while True:
            # The address may be refused, silent or given up at any moment; a listener joins again.
            with suppress(httpx.TransportError, WebSocketException, socketio.exceptions.SocketIOError, OSError):
                async with asyncio.timeout(5.0):  # now and then it joins anew anyway: at a restart it must
                    await way()
            await asyncio.sleep(0.1)

    async def _server_sent_events(self) -> None:
        async with (
            httpx.AsyncClient(timeout=None, trust_env=False) as client,
            client.stream("GET", f"{self._url}/ai/events") as stream,
        ):
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    self._hear("sse", json.loads(line[6:]))

    async def _websocket(self) -> None:
        async with connect(f"{self._url.replace('http', 'ws')}/ai/ws", proxy=None, close_timeout=0.1) as opened:
            await opened.send(json.dumps({"event": "subscribe:events", "data": ["job:*"]}))
            async for text in opened:
                said = json.loads(text)
                self._hear("websocket", said["data"])
                if said["event"] == "ping":
                    await opened.send(json.dumps({"event": "pong", "data": said["data"]}))

    async def _socket_io(self) -> None:
        client = socketio.AsyncClient(reconnection=False)
        client.on("*", lambda _, data=None: self._hear("socket.io", data))
        try:
            await client.connect(self._url, transports=["websocket"], wait_timeout=5)
            await client.emit("subscribe:events", ["job:*"])
            await client.wait()
        finally:
            await client.disconnect()

    def _hear(self, way: str, data: Any) -> None:
        if isinstance(data, dict) and "jobId" in data:
            self.heard[way].add(data["jobId"])


def chat(provider: str) -> dict[str, Any]:
    """A job's payload."""
    messages = [{"role": "user", "content": f"of {provider}"}]
    return {"type": "chat_completion", "provider": provider, "model": "m", "messages": messages}
