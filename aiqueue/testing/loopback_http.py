"""HTTP/1.1 over asyncio streams, as little as the simulated provider needs.

By hand, because its faults are below what a web framework lets one do: a body that ends half way, a connection that is
reset, a client that is watched while it waits.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

_JSON = {"content-type": "application/json"}
_STREAM = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}


class ClientGone(Exception):
    """The client closed the connection while it waited."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. Names of ``headers`` are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """One client's connection: requests in, answers out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def next_request(self) -> HttpRequest | None:
        """Return the next request, None when the client has closed."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            method, target, _ = first.split(" ", 2)
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return HttpRequest(method, target.partition("?")[0], headers, body)

    async def wait(self, seconds: float | None) -> None:
        """Return after ``seconds`` (None: never). Raises ClientGone when the client closes before."""
        if seconds == 0:
            return
        try:
            # A client that waits for its answer sends nothing: what can be read is the end of its stream.
            async with asyncio.timeout(seconds):
                await self._reader.read(1)
        except TimeoutError:
            return
        except ConnectionError:
            pass
        raise ClientGone

    async def send(self, status: int, body: bytes, headers: Mapping[str, str], *, share: float = 1.0) -> None:
        """Send an answer, or only that ``share`` of its body."""
        self._head(status, {**_JSON, "content-length": str(len(body)), **headers})
        self._writer.write(body[: int(len(body) * share)])
        await self._writer.drain()

    async def send_json(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
        """Send ``body`` as JSON."""
        await self.send(status, json.dumps(body).encode(), headers)

    def start_stream(self, headers: Mapping[str, str]) -> None:
        """Begin an answer whose length is not known."""
        self._head(200, {**_STREAM, **headers})

    async def send_part(self, part: bytes) -> None:
        """Send one piece of a stream; an empty one ends it."""
        self._writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await self._writer.drain()

    def reset(self) -> None:
        """Break the connection: the client sees a reset, not an end."""
        linger_for_no_time = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
        self._writer.transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
