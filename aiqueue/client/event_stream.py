"""Events one after another, from a cursor on: what ``adapter.events()`` gives and the HTTP streams are made of.

A stream asks the queue's log for the next few events when its reader has taken the last ones. So a slow reader holds
no memory anywhere; one that is too slow for the log's window gets a ``Gap`` and goes on behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from aiqueue.client.listeners import EVENTS, JobEvent, job_event
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import QueueUnavailable
from aiqueue.ids import new_id
from aiqueue.protocol import EventsCall, EventsReply

_log = logging.getLogger(__name__)
_RETRY_S = 0.3
_WAIT_S = 60.0
BATCH = 64  #: events fetched at once, and so the most that wait for a stream's reader


class Gap(msgspec.Struct, frozen=True):
    """Events are missing here: the log no longer reaches back to them. Look the jobs up that matter."""

    after: int  #: number of the last event before the gap
    number: int  #: number of the last event in the gap: the cursor that goes on behind it


class EventStream:
    """An endless asynchronous iterator of events; ``aclose`` it, or use it as an async context manager.

    It goes on through a restart of the queue: nothing is lost or repeated without a ``Gap``.
    """

    def __init__(
        self,
        transport: QueueTransport,
        *,
        after: int | None = None,
        names: Collection[str] = (),
        job_ids: Iterable[str] | None = None,
    ) -> None:
        """``after`` is the number of the last event already seen; None begins with what happens after ``open``.

        ``names`` and ``job_ids`` choose; no names are all names, None is all jobs. Raises ValueError for an unknown
        name.
        """
        if unknown := set(names) - EVENTS:
            raise ValueError(f"unknown event {min(unknown)!r}; there are: {', '.join(sorted(EVENTS))}")
        self._transport = transport
        self._client_id = new_id("stream")  # of its own: the queue parks one poll for each client
        self._after = after
        self._names = sorted(names)
        self._job_ids = None if job_ids is None else list(job_ids)
        self._fetching: asyncio.Task[EventsReply] | None = None
        self._woken = asyncio.Event()
        self._ready: deque[JobEvent | Gap] = deque()

    async def open(self) -> int:
        """Fix where the stream begins, if it was not given; return the cursor. Raises QueueUnavailable."""
        if self._after is None:
            self._after = await self.newest()
        return self._after

    async def newest(self) -> int:
        """Return the number of the newest event there is. Raises QueueUnavailable."""
        return (await self._transport.hello()).last_event

    async def backlog(self) -> list[JobEvent | Gap]:
        """Return the next events that have happened already, without waiting. Raises QueueUnavailable."""
        await self.open()
        return self._take(await self._transport.events(self._call(wait_s=0.0)))

    async def poll(self, wait_s: float) -> list[JobEvent | Gap]:
        """Return the next events, at most ``BATCH``; nothing when there is none for ``wait_s`` seconds, or on ``wake``.

        While the queue does not answer, the stream asks again with the same cursor.
        """
        fetching = self._fetching = self._fetching or asyncio.create_task(self._fetch())
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({fetching, woken}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        self._woken.clear()
        if self._fetching is not fetching or not fetching.done():  # `watch` may have come in between
            return []
        self._fetching = None
        return self._take(fetching.result())

    def watch(self, job_ids: Iterable[str]) -> None:
        """From now on return only the events of these jobs."""
        self._job_ids = list(job_ids)
        if self._fetching is not None:
            # The next poll sends the one at the queue home; what it brings is asked for again with the same cursor.
            self._fetching.cancel()
            self._fetching = None
        self.wake()

    def wake(self) -> None:
        """Let ``poll`` return."""
        self._woken.set()

    async def aclose(self) -> None:
        """Let go of the queue."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait([fetching])

    async def __aenter__(self) -> EventStream:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> JobEvent | Gap:
        while not self._ready:
            self._ready.extend(await self.poll(_WAIT_S))
        return self._ready.popleft()

    async def _fetch(self) -> EventsReply:
        while True:
            try:
                await self.open()
                return await self._transport.events(self._call())
            except QueueUnavailable as error:
                _log.info("event stream: %s; asking again", error)
                await asyncio.sleep(_RETRY_S)

    def _call(self, wait_s: float = 20.0) -> EventsCall:
        everyones, watching = self._job_ids is None, self._job_ids or []
        return EventsCall(self._client_id, self._after or 0, self._names, everyones, watching, BATCH, wait_s)

    def _take(self, reply: EventsReply) -> list[JobEvent | Gap]:
        taken: list[JobEvent | Gap] = []
        if reply.gap:
            taken.append(Gap(self._after or 0, reply.after))
        for event in reply.events:
            try:
                taken.append(job_event(event))
            except Exception:  # a result that is none: it must not stop the stream for good
                _log.exception("event stream: event %d can't be read", event.number)
        self._after = reply.after
        return taken
