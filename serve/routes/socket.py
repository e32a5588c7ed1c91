"""``/ai/ws``: a WebSocket on which a client subscribes to jobs and is told how they go.

Messages are JSON objects with ``event`` and ``data``. From the client: ``subscribe:job`` and ``unsubscribe:job`` with a
job's id, ``subscribe:events`` with a list of names of events (the last list counts; wildcards as in Python), ``pong``
with the number of a ``ping``. To the client: ``job:update`` (at once on subscribing, then on every change),
``job:error`` for an id that is no job's, an event asked for by its name with the data it has as a server-sent event,
``gap`` where changes were missed (the jobs' present states follow), and ``ping``.

Under Serve a send never waits for the reader, however slow it is. So the reader says how far it is: who does not answer
``ping`` gets no more than a window of messages, nothing piles up for him, and after a while he is cut off. Who reads
less than a window need not know of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

import msgspec
from starlette.websockets import WebSocket

from aiqueue.errors import AIQueueError, QueueUnavailable
from aiqueue.views import encode_json
from serve.following import Follower, Refused
from serve.http_errors import problem_response
from serve.joining import adapter_in
from serve.routes.shared import QueueAdapter
from serve.streams import STUCK_S, TooManyStreams

logger = logging.getLogger(__name__)

WINDOW = 64  #: messages that may be on their way to a reader
WINDOW_BYTES = 256 * 2**10  #: and their bytes; one message may be larger
MAX_MESSAGE = 64 * 2**10
PING_S = 15.0
_CLOSE_S = 1.0

POLICY, TOO_BIG, BUG, RESTART, TRY_LATER = 1008, 1009, 1011, 1012, 1013  #: close codes of RFC 6455 and its registry


class Heard(msgspec.Struct):
    """A message of the client's."""

    event: str
    data: Any = None


class _Said(msgspec.Struct):
    event: str
    data: Any


class _Closed(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


_decode = msgspec.json.Decoder(Heard).decode


async def serve_socket(websocket: WebSocket) -> None:
    """Serve one socket until either side ends it."""
    try:
        adapter = adapter_in(websocket.app.state)
    except QueueUnavailable as error:
        await refuse(websocket, error)
        return
    try:
        with websocket.app.state.streams.taken():
            await websocket.accept()
            await _Socket(websocket, adapter).run()
    except TooManyStreams as error:
        await refuse(websocket, error)


async def refuse(websocket: WebSocket, error: AIQueueError) -> None:
    """Answer a socket for which there is no room, or no queue."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(problem_response(error, websocket.scope))
    else:
        await websocket.close(TRY_LATER, str(error)[:100])


class _Window:
    """What was sent and not yet answered for."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._sizes: deque[int] = deque()  # of the messages on their way
        self._bytes = 0
        self._sent = 0
        self._pinged = 0
        self._moved = asyncio.Event()
        self.last_sent_at = asyncio.get_running_loop().time()

    async def send(self, event: str, data: object) -> None:
        """Send one message when there is room for it. Raises _Closed if the reader does not move."""
        text = encode_json(_Said(event, data))
        while len(self._sizes) >= WINDOW or (self._sizes and self._bytes + len(text) > WINDOW_BYTES):
            await self._room()
        self._sent += 1
        self._sizes.append(len(text))
        self._bytes += len(text)
        await self._write(text)
        if self._sent - self._pinged >= WINDOW // 2:
            await self.ping()

    async def ping(self) -> None:
        """Ask the reader how far it is."""
        self._pinged = self._sent
        await self._write(encode_json(_Said("ping", self._sent)))

    def acknowledge(self, number: object) -> None:
        """Take the reader's word that it has read the first ``number`` messages."""
        if not isinstance(number, int) or not 0 <= number <= self._sent:
            raise _Closed(POLICY, "pong must carry the number of a ping")
        while self._sizes and self._sent - len(self._sizes) < number:
            self._bytes -= self._sizes.popleft()
        self._moved.set()

    async def _room(self) -> None:
        self._moved.clear()
        if self._pinged < self._sent:
            await self.ping()
        try:
            async with asyncio.timeout(STUCK_S):
                await self._moved.wait()
        except TimeoutError:
            raise _Closed(TRY_LATER, 'too slow: answer {"event":"ping","data":n} with "pong" and n') from None

    async def _write(self, text: bytes) -> None:
        self.last_sent_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(STUCK_S):
                await self._websocket.send_text(text.decode())
        except TimeoutError:
            raise _Closed(TRY_LATER, "too slow") from None


class _Socket:
    """One task reads and never waits for the one that sends; a third one waits for the server's end."""

    def __init__(self, websocket: WebSocket, adapter: QueueAdapter) -> None:
        self._websocket = websocket
        self._window = _Window(websocket)
        self._follower = Follower(adapter, self._window.send)

    async def run(self) -> None:
        """Serve until the client leaves or is sent away."""
        tasks = [asyncio.create_task(each()) for each in (self._read, self._write, self._leave)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            await self._follower.aclose()
        await self._close(next((error for error in ended if isinstance(error, Exception)), None))

    async def _leave(self) -> None:
        await self._websocket.app.state.streams.closing.wait()
        raise _Closed(RESTART, "the server stops")

    async def _close(self, error: Exception | None) -> None:
        if error is None:
            return  # the client closed it
        if isinstance(error, Refused):
            error = _Closed(POLICY, str(error))
        if not isinstance(error, _Closed):
            logger.error("a WebSocket failed", exc_info=error)
            error = _Closed(BUG, "internal error")
        with contextlib.suppress(Exception):  # it may be gone already
            async with asyncio.timeout(_CLOSE_S):
                await self._websocket.close(error.code, error.reason)

    async def _read(self) -> None:
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            raw = message.get("text") or message.get("bytes") or b""
            if len(raw) > MAX_MESSAGE:
                raise _Closed(TOO_BIG, f"a message may have {MAX_MESSAGE} bytes")
            try:
                heard = _decode(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise _Closed(POLICY, 'messages are JSON: {"event": "subscribe:job", "data": "<job id>"}') from None
            self._hear(heard)

    def _hear(self, heard: Heard) -> None:
        if heard.event == "pong":
            self._window.acknowledge(heard.data)
        elif heard.event == "subscribe:job":
            self._follower.subscribe(heard.data)
        elif heard.event == "unsubscribe:job":
            self._follower.unsubscribe(heard.data)
        elif heard.event == "subscribe:events":
            self._follower.subscribe_events(heard.data)
        else:
            raise _Closed(POLICY, "no message of this protocol: subscribe:job, unsubscribe:job, subscribe:events, pong")

    async def _write(self) -> None:
        while True:
            await self._follower.step(PING_S)
            if asyncio.get_running_loop().time() - self._window.last_sent_at >= PING_S:
                await self._window.ping()
