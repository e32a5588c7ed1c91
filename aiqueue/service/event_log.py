"""The numbered log of events, and the long polls that wait on it.

The log is a bounded window. A reader asks for what came after its cursor; one that fell behind the window is told so
(``gap``) and looks its jobs up instead. Nobody's slowness holds memory or the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiqueue.protocol import Event, EventsCall, EventsReply

_EVENT_BYTES = 500  # about what an event weighs beside its result


class EventLog:
    """Events in order, the oldest dropped beyond ``max_events`` or ``max_bytes``."""

    def __init__(self, *, next_number: int, max_events: int = 100_000, max_bytes: int = 64 * 2**20) -> None:
        self._events: list[Event] = []
        self._first = next_number  #: number of the oldest event kept
        self._bytes = 0
        self._max_events, self._max_bytes = max_events, max_bytes
        self._parked: dict[str, tuple[EventsCall, asyncio.Future[None]]] = {}

    @property
    def last(self) -> int:
        """Number of the newest event; 0 before the first."""
        return self._first + len(self._events) - 1

    def publish(self, events: list[Event]) -> None:
        """Append committed events and wake the readers that wait for any of them."""
        if not events:
            return
        self._events += events
        self._bytes += sum(len(event.result) + _EVENT_BYTES for event in events)
        self._trim()
        for call, waiter in self._parked.values():
            if not waiter.done() and any(_wants(call, event) for event in events):
                waiter.set_result(None)

    async def poll(self, call: EventsCall) -> EventsReply:
        """Return the events after ``call.after`` that the client wants; wait for one up to ``call.wait_s``.

        A client has one poll parked at most: a new one sends an older one home, so that it can widen what it wants.
        """
        self._send_home(call.client_id)
        if call.after < self._first - 1:
            return EventsReply([], self.last, gap=True)
        reply = self._collect(call)
        if not reply.events:
            await self._park(call)
            if call.after < self._first - 1:
                return EventsReply([], self.last, gap=True)
            reply = self._collect(call)
        return reply

    async def _park(self, call: EventsCall) -> None:
        waiter = asyncio.get_running_loop().create_future()
        entry = self._parked[call.client_id] = (call, waiter)
        try:
            await asyncio.wait_for(waiter, call.wait_s)
        except TimeoutError:
            pass
        finally:
            if self._parked.get(call.client_id) is entry:
                del self._parked[call.client_id]

    def _send_home(self, client_id: str) -> None:
        parked = self._parked.pop(client_id, None)
        if parked and not parked[1].done():
            parked[1].set_result(None)

    def _collect(self, call: EventsCall) -> EventsReply:
        start = max(0, call.after + 1 - self._first)
        found: list[Event] = []
        for event in self._since(start):
            if _wants(call, event):
                found.append(event)
                if len(found) == call.limit:
                    return EventsReply(found, event.number)
        return EventsReply(found, max(call.after, self.last))

    def _since(self, start: int) -> Iterator[Event]:
        return (self._events[at] for at in range(start, len(self._events)))

    def _trim(self) -> None:
        over = len(self._events) - self._max_events
        # A quarter at a time: deleting from the front of a list moves all the rest.
        if over > self._max_events // 4 or self._bytes > self._max_bytes:
            drop = max(over, len(self._events) // 4)
            self._bytes -= sum(len(event.result) + _EVENT_BYTES for event in self._events[:drop])
            del self._events[:drop]
            self._first += drop


def _wants(call: EventsCall, event: Event) -> bool:
    if call.names and event.name not in call.names:
        return False
    return call.all_owners or event.owner == call.client_id or event.job_id in call.watching
