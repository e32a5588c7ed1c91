"""Answers that do not end: how many there may be, and how one is sent to a reader who may be slow or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aiqueue.errors import AIQueueError

#: At once and per replica. Each holds one of the replica's ``max_ongoing_requests`` (1,000); the rest is for plain
#: requests.
MAX_STREAMS = 200
STUCK_S = 30.0  #: a reader who takes nothing for so long is cut off


class TooManyStreams(AIQueueError):
    """This replica serves as many streams as it may."""

    kind = "too_many_streams"
    http_status = 503
    retryable = True
    retry_after_s = 5.0


class StreamSlots:
    """Counts the streams that are open."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self.open = 0
        self.closing = asyncio.Event()  #: the server stops: streams without an end of their own are to end

    def close(self) -> None:
        """Take no more streams, and let those go that have no end."""
        self.closing.set()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one slot while the block runs. Raises TooManyStreams."""
        if self.closing.is_set():
            raise TooManyStreams("the server stops; come back in a moment")
        if self.open >= self._limit:
            raise TooManyStreams(f"{self._limit} streams are open here already; poll, or read pages, or wait")
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class StreamResponse(Response):
    """A stream, piece by piece; it ends with the pieces, or when the reader is gone or stuck.

    One that is ``endless`` ends with the server too.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], slots: StreamSlots, media_type: str, *, endless: bool = False
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(None, 200, headers, media_type)
        del self.headers["content-length"]
        self._pieces, self._slots, self._endless = pieces, slots, endless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all. Raises TooManyStreams before anything is sent."""
        async with contextlib.aclosing(self._pieces):
            with self._slots.taken():
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                sending = asyncio.ensure_future(self._send(send))
                others: list[asyncio.Future[Any]] = [asyncio.ensure_future(_disconnected(receive))]
                if self._endless:
                    others.append(asyncio.ensure_future(self._slots.closing.wait()))
                try:
                    await asyncio.wait({sending, *others}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (sending, *others):
                        task.cancel()
                    ended, gone, *_ = await asyncio.gather(sending, *others, return_exceptions=True)
                if isinstance(ended, asyncio.CancelledError) and isinstance(gone, asyncio.CancelledError):
                    await _body(send, b"", more=False)  # the reader is there: an end and not a cut
                if isinstance(ended, Exception) and not isinstance(ended, TimeoutError | OSError):
                    raise ended

    async def _send(self, send: Send) -> None:
        async for piece in self._pieces:
            await _body(send, piece, more=True)
        await _body(send, b"", more=False)


class EventResponse(StreamResponse):
    """A stream of server-sent events."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], slots: StreamSlots, *, endless: bool = False) -> None:
        super().__init__(pieces, slots, "text/event-stream", endless=endless)


async def _body(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(STUCK_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
