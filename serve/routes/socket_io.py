"""``/socket.io/``: the same subscriptions for clients of Socket.IO, over its WebSocket transport.

The events are those of ``/ai/ws``: ``subscribe:job``, ``unsubscribe:job`` and ``subscribe:events`` from the client,
``job:update``, ``job:error``, ``gap`` and events by their names to it. The long-polling transport is refused: its
requests would have to find the same replica each time.

The library puts whatever is emitted into a queue without an end, and under Serve a send never waits for the reader. So
pings of our own go between its packets, which every client answers by itself: the answers say how far the reader is,
and no more than a window of packets is ever on its way to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

import msgspec
import socketio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from aiqueue.errors import FieldError, QueueUnavailable, ValidationError
from serve.following import Follower, Refused
from serve.http_errors import problem_response
from serve.joining import adapter_in
from serve.routes.shared import QueueAdapter
from serve.routes.socket import RESTART, TRY_LATER, refuse
from serve.streams import STUCK_S, TooManyStreams

logger = logging.getLogger(__name__)

PATH = "/socket.io/"
WINDOW = 64  #: packets that may be on their way to a reader
WINDOW_BYTES = 256 * 2**10  #: and their bytes; one packet may be larger
_MAX_MESSAGE = 64 * 2**10
_PING_S, _PONG_S = 15, 20
_WAIT_S = 60.0
_CLOSE_S = 1.0
# Packets as they begin, in versions 4 of Engine.IO and 5 of Socket.IO.
_EVENT, _DISCONNECT, _PING, _PONG = "42", "41", "2", "3"
_FLOW = "aiqueue.flow"  # where a connection's flow is found in its scope


class _Flow:
    """One connection's packets: what was emitted, what was written, and how far the reader is."""

    def __init__(self, send: Send, receive: Receive) -> None:
        self._send, self._receive = send, receive
        self._emitted = 0  # and not yet written
        self._sizes: deque[int] = deque()  # of the packets on their way
        self._bytes = 0
        self._written = self._pinged = 0
        self._pings: deque[tuple[bool, int]] = deque()  # unanswered: whether it is ours, packets written before it
        self._moved = asyncio.Event()
        self.left = asyncio.Event()  #: the client was told that it is sent away

    async def room(self) -> None:
        """Return when one more packet may be emitted. Raises TimeoutError if the reader does not move."""
        while self._emitted + len(self._sizes) >= WINDOW or self._bytes > WINDOW_BYTES:
            self._moved.clear()
            if self._pinged < self._written:
                await self._ping()
            async with asyncio.timeout(STUCK_S):
                await self._moved.wait()
        self._emitted += 1

    async def send(self, message: Message) -> None:
        """Pass a message of the library's on to the client."""
        text = message.get("text")
        if message["type"] != "websocket.send" or text is None:
            await self._send(message)
        elif text == _PING:
            self._pings.append((False, self._written))
            await self._send(message)
        else:
            self._emitted -= text.startswith(_EVENT)
            self._written += 1
            self._sizes.append(len(text))
            self._bytes += len(text)
            await self._send(message)
            if text.startswith(_DISCONNECT):
                self.left.set()
            if self._written - self._pinged >= WINDOW // 2:
                await self._ping()

    async def receive(self) -> Message:
        """Return the client's next message that the library is to see: not an answer to a ping of ours."""
        while True:
            message = await self._receive()
            if message.get("text") != _PONG or not self._pings:
                return message
            ours, number = self._pings.popleft()
            while self._sizes and self._written - len(self._sizes) < number:
                self._bytes -= self._sizes.popleft()
            self._moved.set()
            if not ours:
                return message

    async def close(self, code: int = TRY_LATER) -> None:
        """Close the socket."""
        with contextlib.suppress(Exception):  # as it may be by now
            async with asyncio.timeout(_CLOSE_S):
                await self._send({"type": "websocket.close", "code": code})

    async def _ping(self) -> None:
        self._pinged = self._written
        self._pings.append((True, self._written))
        await self._send({"type": "websocket.send", "text": _PING})


class _Client:
    """One connected client."""

    def __init__(self, hub: SocketIoHub, sid: str, flow: _Flow, adapter: QueueAdapter) -> None:
        self._hub, self._sid, self.flow = hub, sid, flow
        self.follower = Follower(adapter, self._emit)
        self.task = asyncio.create_task(self._run())

    async def _emit(self, event: str, data: object) -> None:
        await self.flow.room()
        await self._hub.server.emit(event, msgspec.to_builtins(data), to=self._sid)

    async def _run(self) -> None:
        try:
            while True:
                await self.follower.step(_WAIT_S)
        except TimeoutError:
            logger.info("a Socket.IO client takes nothing; it is cut off")
        except Exception:
            logger.exception("a Socket.IO client's subscriptions failed")
        finally:
            await self.follower.aclose()
        await self._hub.dismiss(self._sid)


class SocketIoHub:
    """The Socket.IO server of one application, as an ASGI application."""

    def __init__(self, state: Any) -> None:
        self._state = state  # the application's: its adapter and its count of streams
        self._clients: dict[str, _Client] = {}
        self.server = socketio.AsyncServer(
            async_mode="asgi",
            transports=["websocket"],
            async_handlers=False,  # a client's messages count in their order
            cors_allowed_origins=[],  # HostGuard has looked at it
            ping_interval=_PING_S,
            ping_timeout=_PONG_S,
            max_http_buffer_size=_MAX_MESSAGE,
        )
        self.server.on("connect", self._connect)
        self.server.on("disconnect", self._disconnect)
        for event in ("subscribe:job", "unsubscribe:job", "subscribe:events"):
            self.server.on(event, self._listener(event))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        websocket = WebSocket(scope, receive, send)
        flow = _Flow(send, receive)
        upgrade = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]  # what it is; a proxy may drop the words
        kept = [(name, value) for name, value in scope["headers"] if name not in (b"connection", b"upgrade")]
        inner = {**scope, "headers": [*kept, *upgrade], _FLOW: flow}
        try:
            adapter_in(self._state)
        except QueueUnavailable as error:
            await refuse(websocket, error)
            return
        try:
            with self._state.streams.taken():
                await self.server.eio.handle_request(inner, flow.receive, flow.send)
        except TooManyStreams as error:
            await refuse(websocket, error)

    async def close(self) -> None:
        """Let all clients go."""
        for client in list(self._clients.values()):
            client.task.cancel()
        await asyncio.gather(*(client.task for client in self._clients.values()), return_exceptions=True)
        await self.server.shutdown()

    async def send_away(self) -> None:
        """Close all sockets. Told to disconnect, a client would not come back; from a socket that closes it does."""
        await asyncio.gather(*(client.flow.close(RESTART) for client in self._clients.values()))

    async def dismiss(self, sid: str) -> None:
        """End a client's connection."""
        client = self._let_go(sid)
        with contextlib.suppress(Exception):  # it may be gone already, or take nothing any more
            async with asyncio.timeout(_CLOSE_S):
                await self.server.disconnect(sid)
                if client is not None:
                    await client.flow.left.wait()  # what was said before is out then
        if client is not None:
            await client.flow.close()  # the library leaves that to the client

    async def _connect(self, sid: str, environ: dict[str, Any], _: object = None) -> None:
        self._clients[sid] = _Client(self, sid, environ["asgi.scope"][_FLOW], self._state.adapter)

    async def _disconnect(self, sid: str, _: object = None) -> None:
        self._let_go(sid)

    def _let_go(self, sid: str) -> _Client | None:
        client = self._clients.pop(sid, None)
        if client is not None and client.task is not asyncio.current_task():
            client.task.cancel()
        return client

    def _listener(self, event: str) -> Any:
        async def hear(sid: str, data: object = None, *_: object) -> None:
            client = self._clients.get(sid)
            if client is None:
                return
            follower = client.follower
            does = {"subscribe:job": follower.subscribe, "unsubscribe:job": follower.unsubscribe}
            try:
                does.get(event, follower.subscribe_events)(data)
            except Refused as error:
                await self.server.emit("error", {"error": str(error)}, to=sid)
                await self.dismiss(sid)

        return hear


async def refuse_polling(request: Request) -> Response:
    """Answer a client that begins with long polling, as Socket.IO's do unless told otherwise."""
    message = 'only "websocket" is served: give the client transports: ["websocket"]'
    return problem_response(ValidationError([FieldError("transport", message)]), request.scope)
