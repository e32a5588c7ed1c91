"""Events one after another, from a cursor on: what ``adapter.events()`` gives and the HTTP streams are made of.

Streams share their process's one long poll. One that begins behind it, or whose reader is too slow for its buffer,
asks the queue's log for the next few events when its reader has taken the last ones. So a slow reader holds little
memory; one that is too slow for the log's window gets a ``Gap`` and goes on behind it.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from aiqueue.client import given
from aiqueue.client.listeners import EVENTS, AnyEvent, seen_event
from aiqueue.client.subscriptions import Interest, Subscription, Subscriptions
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import FieldError, QueueUnavailable, StartError, ValidationError
from aiqueue.ids import new_id
from aiqueue.iterables import is_iterable
from aiqueue.protocol import Event, EventsCall
from aiqueue.texts import plain

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
        shared: Subscriptions,
        *,
        after: int | None = None,
        names: Collection[str] = (),
        job_ids: Iterable[str] | None = None,
    ) -> None:
        """``after`` is the number of the last event already seen; None begins with what happens after ``open``.

        ``names`` and ``job_ids`` choose; no names are all names, None is all jobs. Raises ValidationError, also for an
        unknown name.
        """
        self._transport, self._shared = transport, shared
        self._client_id = new_id("stream")  # for what it asks the log itself
        self._after = None if after is None else given.number("after", after)
        self._names = _known(names)
        jobs = None if job_ids is None else frozenset(given.job_ids(job_ids))  # the poll of all streams asks for them
        self._subscription = Subscription(Interest(jobs, self._names))
        self._subscription.asked = after is not None  # the log knows a cursor that is ahead of it, the poll does not
        self._letting_go: weakref.finalize[..., EventStream] | None = None
        self._fetching: asyncio.Task[list[AnyEvent | Gap]] | None = None
        self._woken = asyncio.Event()
        self._ready: deque[AnyEvent | Gap] = deque()

    async def open(self) -> int:
        """Fix where the stream begins, if it was not given; return the cursor. Raises QueueUnavailable."""
        if self._after is None:
            self._after = await self.newest()
        if self._letting_go is None:
            # Also for a reader that leaves a loop over the stream and closes nothing.
            self._letting_go = weakref.finalize(self, self._shared.remove, self._subscription)
            self._shared.add(self._subscription)
        return self._after

    async def newest(self) -> int:
        """Return the number of the newest event there is. Raises QueueUnavailable."""
        return (await self._transport.hello()).last_event

    async def backlog(self) -> list[AnyEvent | Gap]:
        """Return the next events that have happened already, without waiting. Raises QueueUnavailable."""
        await self.open()
        return await self._ask()

    async def poll(self, wait_s: float) -> list[AnyEvent | Gap]:
        """Return the next events, at most ``BATCH``; nothing when there is none for ``wait_s`` seconds, or on ``wake``.

        While the queue does not answer, the stream asks again with the same cursor.
        """
        fetching = self._fetching = self._fetching or asyncio.create_task(self._next())
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({fetching, woken}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        self._woken.clear()
        if self._fetching is not fetching or not fetching.done():  # `watch` may have come in between
            return []
        self._fetching = None
        return fetching.result()

    def watch(self, job_ids: Iterable[str], also: Collection[str] = ()) -> None:
        """From now on return only the events of these jobs, and those of the names in ``also``.

        Raises ValidationError for what is no id or no name.
        """
        self._shared.change(
            self._subscription, Interest(frozenset(map(given.job_id, job_ids)), self._names, _known(also))
        )
        if self._fetching is not None and not self._fetching.done():
            self._fetching.cancel()  # an answer under way is not about these jobs; its cursor was not passed yet
            self._fetching = None
        self.wake()

    def wake(self) -> None:
        """Let ``poll`` return."""
        self._woken.set()

    async def aclose(self) -> None:
        """Let go of the queue."""
        if self._letting_go is not None:
            self._letting_go()
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

    async def __anext__(self) -> AnyEvent | Gap:
        while not self._ready:
            self._ready.extend(await self.poll(_WAIT_S))
        return self._ready.popleft()

    async def _next(self) -> list[AnyEvent | Gap]:
        """Return the next events, at least one."""
        shared = self._subscription
        while True:
            try:
                after = await self.open()
                if shared.closed:
                    raise StartError("the adapter was stopped, and this stream of events with it")
                if not shared.joined:
                    shared.news.clear()
                elif found := await self._ask() if shared.lags(after) else self._seen(shared.take(after, BATCH)):
                    return found
                elif shared.lags(self._after or 0):
                    continue  # what waits here comes after what is still to be asked for
                await shared.news.wait()
            except QueueUnavailable as error:
                _log.info("event stream: %s; asking again", error)
                await asyncio.sleep(_RETRY_S)

    async def _ask(self) -> list[AnyEvent | Gap]:
        """Ask the log for what comes behind the cursor."""
        after, (jobs, names, also) = self._after or 0, self._subscription.interest
        self._subscription.asked = False
        call = EventsCall(
            self._client_id, after, sorted(names), jobs is None, sorted(jobs or ()), BATCH, 0.0, sorted(also)
        )
        try:
            reply = await self._transport.events(call)
        except BaseException:
            self._subscription.asked = True
            raise
        found: list[AnyEvent | Gap] = [Gap(after, reply.after)] if reply.gap else []
        found += self._seen(reply.events)
        self._after = reply.after
        return found

    def _seen(self, events: list[Event]) -> list[AnyEvent | Gap]:
        seen: list[AnyEvent | Gap] = []
        for event in events:
            self._after = event.number
            try:
                seen.append(seen_event(event))
            except Exception:  # a result that is none: it must not stop the stream for good
                _log.exception("event stream: event %d can't be read", event.number)
        return seen


def _known(names: object) -> frozenset[str]:
    if not is_iterable(names):
        raise ValidationError([FieldError("names", f"must be a list of names of events, not {type(names).__name__}")])
    wanted = [plain(name) if isinstance(name, str) else name for name in names]
    for name in wanted:
        if not isinstance(name, str) or name not in EVENTS:
            message = f"unknown event {name!r:.70}; there are: {', '.join(sorted(EVENTS))}"
            raise ValidationError([FieldError("names", message)])
    return frozenset(wanted)
