"""Clients of answers that do not end, straight over ASGI: server-sent events and a WebSocket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

LIMIT_S = 10.0  # what is waited for comes at once; this ends a test that would wait for ever


@dataclass
class SseEvent:
    """One event as a browser sees it."""

    name: str
    id: int
    data: dict[str, Any]


def parse_events(text: str) -> list[SseEvent]:
    """Return the events in a piece of a stream; comments and other fields are passed over."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append(SseEvent(fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


class _AsgiClient:
    """Use as an async context manager: leaving it hangs up."""

    kind = ""

    def __init__(self, app: Any, address: str, headers: dict[str, str] | None = None, *, denial: bool = True) -> None:
        parts = urlsplit(address)
        given = {"host": "127.0.0.1"} | (headers or {})
        self._scope = {
            "type": self.kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "server": ("test", 80),
            "client": ("test", 1),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}} if denial else {},
        }
        self._app = app
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.taking = asyncio.Event()  #: while it is not set, what the server sends does not go out
        self.taking.set()

    async def __aenter__(self) -> Any:
        self.task = asyncio.create_task(self._app(self._scope, self._incoming.get, self._send))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.put(type="http.disconnect" if self.kind == "http" else "websocket.disconnect")
        async with asyncio.timeout(LIMIT_S):
            await asyncio.wait([self.task])

    def put(self, **message: Any) -> None:
        """Give the server a message."""
        self._incoming.put_nowait(message)

    async def take(self) -> dict[str, Any]:
        """Return the server's next message."""
        async with asyncio.timeout(LIMIT_S):
            return await self.sent.get()

    async def _send(self, message: Any) -> None:
        await self.taking.wait()
        self.sent.put_nowait(message)


class SseClient(_AsgiClient):
    """A reader of server-sent events."""

    kind = "http"

    async def __aenter__(self) -> SseClient:
        await super().__aenter__()
        self.put(type="http.request", body=b"", more_body=False)
        start = await self.take()
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return self

    async def piece(self) -> bytes | None:
        """Return the next bytes; None at the end."""
        message = await self.take()
        body: bytes = message.get("body", b"")
        return body if body or message.get("more_body") else None

    async def event(self) -> SseEvent | None:
        """Return the next event; None at the end."""
        while (piece := await self.piece()) is not None:
            if events := parse_events(piece.decode()):
                return events[0]
        return None

    async def rest(self) -> list[SseEvent]:
        """Return all events up to the end."""
        found = []
        while event := await self.event():
            found.append(event)
        return found


class SocketClient(_AsgiClient):
    """A WebSocket."""

    kind = "websocket"

    async def __aenter__(self) -> SocketClient:
        await super().__aenter__()
        self.put(type="websocket.connect")
        self.opened = await self.take()
        return self

    def say(self, event: str, data: Any = None) -> None:
        """Send a message."""
        self.put(type="websocket.receive", text=json.dumps({"event": event, "data": data}))

    async def hear(self) -> dict[str, Any]:
        """Return the next message, or ``{"closed": code}``."""
        message = await self.take()
        if message["type"] == "websocket.close":
            return {"closed": message["code"]}
        heard: dict[str, Any] = json.loads(message["text"])
        return heard
