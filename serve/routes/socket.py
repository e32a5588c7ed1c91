"""``/ai/ws``: a WebSocket on which a client subscribes to jobs and is told how they go.

Messages are JSON objects with ``event`` and ``data``. From the client: ``subscribe:job`` and ``unsubscribe:job`` with a
job's id, and ``pong`` with the number of a ``ping``. To the client: ``job:update`` (at once on subscribing, then on
every change), ``job:error`` for an id that is no job's, ``gap`` where changes were missed (the jobs' present states
follow), and ``ping``.

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
from urllib.parse import urlsplit

import msgspec
from starlette.websockets import WebSocket

from aiqueue.client.event_stream import EventStream, Gap
from aiqueue.client.listeners import JobEvent
from aiqueue.errors import JobNotFound, QueueUnavailable
from aiqueue.protocol import END_STATES
from aiqueue.results import JobResult
from aiqueue.views import JobInfo, encode_json
from serve.http_errors import problem_response
from serve.routes.shared import QueueAdapter, parse_job_id
from serve.streams import STUCK_S, TooManyStreams

logger = logging.getLogger(__name__)

WINDOW = 64  #: messages that may be on their way to a reader
WINDOW_BYTES = 256 * 2**10  #: and their bytes; one message may be larger
MAX_JOBS = 500  #: that one socket may follow at once
MAX_MESSAGE = 64 * 2**10
PING_S = 15.0
_RETRY_S = 0.3
_CLOSE_S = 1.0

POLICY, TOO_BIG, BUG, TRY_LATER = 1008, 1009, 1011, 1013  #: close codes of RFC 6455 and its registry


class Heard(msgspec.Struct):
    """A message of the client's."""

    event: str
    data: Any = None


class JobUpdate(msgspec.Struct, rename="camel", omit_defaults=True):
    """How a job is: ``error`` is the message of what ended it or its last attempt, ``code`` the kind of that error."""

    job_id: str
    status: str
    result: JobResult | None = None
    error: str = ""
    code: str = ""


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
    if not _same_origin(websocket):  # a page of any site may open a socket to any address
        await websocket.close(POLICY)
        return
    try:
        with websocket.app.state.streams.taken():
            await websocket.accept()
            await _Socket(websocket, websocket.app.state.adapter).run()
    except TooManyStreams as error:
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
    """One task reads and never waits for the other, which does all that is sent."""

    def __init__(self, websocket: WebSocket, adapter: QueueAdapter) -> None:
        self._websocket, self._adapter = websocket, adapter
        self._stream: EventStream = adapter.events()
        self._stream.watch(())
        self._window = _Window(websocket)
        self._pending: dict[str, None] = {}  # to be looked up and shown as they are now; in order
        self._following: dict[str, int] = {}  # job: the events up to this number are in what was shown of it

    async def run(self) -> None:
        """Serve until the client leaves or is sent away."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            await self._stream.aclose()
        await self._close(next((error for error in ended if isinstance(error, Exception)), None))

    async def _close(self, error: Exception | None) -> None:
        if error is None:
            return  # the client closed it
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
            except msgspec.MsgspecError:
                raise _Closed(POLICY, 'messages are JSON: {"event": "subscribe:job", "data": "<job id>"}') from None
            self._hear(heard)

    def _hear(self, heard: Heard) -> None:
        if heard.event == "pong":
            self._window.acknowledge(heard.data)
        elif heard.event == "subscribe:job" and isinstance(heard.data, str):
            self._pending[_spelling(heard.data)] = None
            if len(self._pending.keys() | self._following.keys()) > MAX_JOBS:
                raise _Closed(POLICY, f"one socket may follow {MAX_JOBS} jobs")
            self._stream.wake()
        elif heard.event == "unsubscribe:job" and isinstance(heard.data, str):
            self._pending.pop(_spelling(heard.data), None)
            self._forget(_spelling(heard.data))
        else:
            raise _Closed(POLICY, "events are subscribe:job and unsubscribe:job with a job's id, and pong")

    async def _write(self) -> None:
        while True:
            try:
                if self._pending:
                    await self._show(next(iter(self._pending)))
                    continue
            except QueueUnavailable:
                await asyncio.sleep(_RETRY_S)
                continue
            for item in await self._stream.poll(PING_S):
                await self._tell(item)
            if asyncio.get_running_loop().time() - self._window.last_sent_at >= PING_S:
                await self._window.ping()

    async def _show(self, job_id: str) -> None:
        """Follow a job and say how it is now."""
        await self._stream.open()
        since = await self._stream.newest()
        if job_id not in self._following:
            self._following[job_id] = since
            self._stream.watch(self._following)
        info = await self._adapter.get_job_status(job_id) if _is_id(job_id) else None
        if self._pending.pop(job_id, ...) is ... or job_id not in self._following:
            return  # unsubscribed meanwhile
        if info is None:
            self._forget(job_id)
            await self._window.send(
                "job:error", JobUpdate(job_id, "", error=str(JobNotFound(job_id)), code=JobNotFound.kind)
            )
            return
        self._following[job_id] = since
        await self._update(info)

    async def _tell(self, item: JobEvent | Gap) -> None:
        if isinstance(item, Gap):  # what was missed may be an end
            await self._window.send("gap", item)
            self._pending.update(dict.fromkeys(self._following))
        elif item.number > self._following.get(item.job_id, item.number):
            await self._update(item.job)

    async def _update(self, info: JobInfo) -> None:
        if info.status in END_STATES:
            self._forget(info.job_id)
        error, code = (info.error.message, info.error.kind) if info.error else ("", "")
        await self._window.send("job:update", JobUpdate(info.job_id, info.status, info.result, error, code))

    def _forget(self, job_id: str) -> None:
        if self._following.pop(job_id, None) is not None:
            self._stream.watch(self._following)


def _spelling(text: str) -> str:
    try:
        return parse_job_id(text)
    except JobNotFound:
        return text[:64]


def _is_id(text: str) -> bool:
    try:
        return parse_job_id(text) == text
    except JobNotFound:
        return False


def _same_origin(websocket: WebSocket) -> bool:
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == websocket.headers.get("host", "").lower()
