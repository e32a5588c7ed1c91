"""The numbered log of events, and the long polls that wait on it.

The log is a bounded window. A reader asks for what came after its cursor; one that fell behind the window is told so
(``gap``) and looks its jobs up instead. Nobody's slowness holds memory or the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import NamedTuple

from aiqueue.errors import TooManyPolls
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import END_EVENTS, Event, EventsCall, EventsReply
from aiqueue.waiting import done_within

_EVENT_BYTES = 500  # about what an event weighs beside its result
_SLICE = 1_000
_REPLY_BYTES = 4 * 2**20  # of events in one answer, about; the first one goes out however large it is
_MAX_POLLS = 4_000  # parked at once, 52 KB each; a fifth of the calls the queue actor takes, the rest is for work
_BUSY_RETRY_S = 5.0
_LATER_S = 0.1  # when a reader hears of an event that its client should have by another way already
#: A reader is answered at most this often, so that under load many events share an answer; of an urgent job's event it
#: hears at once.
_EVERY_S = 0.01
_MAX_REMEMBERED = 10_000  # clients whose last answer's time is kept

_NONE = frozenset[int]()
_URGENT = AIJobPriority.URGENT.rank

_Filter = Callable[[Event], bool]


class _Reader(NamedTuple):
    """A long poll that waits."""

    wants: _Filter
    waiter: asyncio.Future[None]
    own_jobs_of: str | None  #: the client, if nobody there but who waits for its jobs asks
    patient_until: float  #: by the loop's clock

    def wake(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)


class _Lingering:
    """A submit that waits a moment for its jobs to end."""

    def __init__(self, client_id: str, job_ids: set[str], done: asyncio.Future[None]) -> None:
        self.client_id = client_id
        self.open = job_ids
        self.events: list[Event] = []
        self.size = 0  #: of all that came, in bytes
        self.done = done

    def takes(self, event: Event) -> bool:
        """Take the end of one of the jobs. False: the answer is full, and its client polls for the rest."""
        self.open.discard(event.job_id)
        self.size += _weight(event)
        fits = self.size <= _REPLY_BYTES or not self.events
        if fits:
            self.events.append(event)
        if not (fits and self.open) and not self.done.done():
            self.done.set_result(None)
        return fits


class EventLog:
    """Events in order, the oldest dropped beyond ``max_events`` or ``max_bytes``."""

    def __init__(
        self,
        *,
        next_number: int,
        max_events: int = 100_000,
        max_bytes: int = 64 * 2**20,
        max_polls: int = _MAX_POLLS,
    ) -> None:
        self._events: list[Event] = []
        self._first = next_number  #: number of the oldest event kept
        self.restart = 0  #: number of the event that says that the queue was started again
        self._bytes = 0
        self._max_events, self._max_bytes, self._max_polls = max_events, max_bytes, max_polls
        self._parked: dict[str, _Reader] = {}
        self._lingering: dict[str, _Lingering] = {}  #: by job id
        self._answered: dict[str, float] = {}  #: by client: when it last got an answer

    @property
    def last(self) -> int:
        """Number of the newest event; 0 before the first."""
        return self._first + len(self._events) - 1

    def publish(self, events: list[Event]) -> None:
        """Append committed events and wake the readers that wait for any of them."""
        if not events:
            return
        self._events += events
        self._bytes += sum(map(_weight, events))
        self._trim()
        told = self._tell_lingering(events) if self._lingering else {}
        loop = asyncio.get_running_loop()
        for reader in self._parked.values():
            # Who lingered for an event has it; its long poll need not wake for that one, unless the answer got lost.
            has = told.get(reader.own_jobs_of, _NONE) if reader.own_jobs_of else _NONE
            wanted = [event for event in events if event.number not in has and reader.wants(event)]
            if wanted and (reader.patient_until <= loop.time() or any(event.level == _URGENT for event in wanted)):
                reader.wake()
            elif wanted:
                loop.call_at(reader.patient_until, reader.wake)
            elif has:
                loop.call_later(_LATER_S, reader.wake)

    async def linger(self, client_id: str, job_ids: Iterable[str], wait_s: float) -> list[Event]:
        """Wait a moment for the ends of these jobs; return those that came. All or the time over: whichever is first.

        For a submit that waits for its results anyway: a fast job then costs its client one call and not two.
        """
        group = _Lingering(client_id, set(job_ids), asyncio.get_running_loop().create_future())
        self._lingering.update(dict.fromkeys(group.open, group))
        try:
            await done_within(group.done, wait_s)
        finally:
            for job_id in group.open:
                if self._lingering.get(job_id) is group:  # and not another submit of the same job
                    del self._lingering[job_id]
        return group.events

    def _tell_lingering(self, events: list[Event]) -> Mapping[str, AbstractSet[int]]:
        """Give events to those who linger for them; return by client which ones."""
        told: dict[str, set[int]] = {}
        for event in events:
            group = self._lingering.get(event.job_id)
            if group is not None and event.name in END_EVENTS:
                del self._lingering[event.job_id]
                if group.takes(event):
                    told.setdefault(group.client_id, set()).add(event.number)
        return told

    async def poll(self, call: EventsCall) -> EventsReply:
        """Return the events after ``call.after`` that the client wants; wait for one up to ``call.wait_s``.

        A client has one poll parked at most: a new one sends an older one home, so that it can widen what it wants.
        Raises TooManyPolls where it would have to wait and too many do.
        """
        self._send_home(call.client_id)
        wants = _filter(call)
        reply = self._collect(call, wants)
        if not reply.events and not reply.gap:
            await self._park(call, wants)
            reply = self._collect(call, wants)
        self._answered[call.client_id] = asyncio.get_running_loop().time()
        if len(self._answered) > _MAX_REMEMBERED:
            self._answered.clear()
        return reply

    def close(self) -> None:
        """Send all waiting readers home."""
        for client_id in list(self._parked):
            self._send_home(client_id)

    async def _park(self, call: EventsCall, wants: _Filter) -> None:
        if len(self._parked) >= self._max_polls and call.wait_s > 0:
            raise TooManyPolls(f"{self._max_polls} clients wait for events already", _BUSY_RETRY_S)
        waiter = asyncio.get_running_loop().create_future()
        own_only = call.names and not call.all_owners and not call.also
        patient_until = self._answered.get(call.client_id, -_EVERY_S) + _EVERY_S
        reader = _Reader(wants, waiter, call.client_id if own_only else None, patient_until)
        self._parked[call.client_id] = reader
        try:
            await done_within(waiter, call.wait_s)
        finally:
            if self._parked.get(call.client_id) is reader:
                del self._parked[call.client_id]

    def _send_home(self, client_id: str) -> None:
        if reader := self._parked.pop(client_id, None):
            reader.wake()

    def _collect(self, call: EventsCall, wants: _Filter) -> EventsReply:
        start = call.after + 1 - self._first
        if not 0 <= start <= len(self._events):  # behind the window; or ahead of a journal that lost its end
            restart = self._events[self.restart - self._first] if self._first <= self.restart <= self.last else None
            told = [restart] if restart and restart.number > call.after and wants(restart) else []
            return EventsReply(told, self.last, gap=True)  # who missed the restart's first events is told of it too
        found: list[Event] = []
        size = 0
        for at in range(start, len(self._events), _SLICE):
            wanted = [event for event in self._events[at : at + _SLICE] if wants(event)]
            size += sum(map(_weight, wanted))
            found += wanted
            if len(found) >= call.limit or size > _REPLY_BYTES:
                del found[max(1, min(call.limit, _count_within(found, _REPLY_BYTES))) :]
                return EventsReply(found, found[-1].number)
        return EventsReply(found, max(call.after, self.last))

    def _trim(self) -> None:
        # A quarter at a time: deleting from the front of a list moves all the rest.
        while self._events and (len(self._events) > self._max_events * 5 // 4 or self._bytes > self._max_bytes):
            drop = max(1, len(self._events) - self._max_events, len(self._events) // 4)
            self._bytes -= sum(map(_weight, self._events[:drop]))
            del self._events[:drop]
            self._first += drop


def _weight(event: Event) -> int:
    """Return about how many bytes an event takes."""
    return len(event.result) + len(event.data) + _EVENT_BYTES


def _count_within(events: list[Event], limit: int) -> int:
    """Return how many of the first events have together at most ``limit`` bytes."""
    for count, size in enumerate(accumulate(map(_weight, events))):
        if size > limit:
            return count
    return len(events)


def _filter(call: EventsCall) -> _Filter:
    """Return the test that says which events the caller wants; it runs for every event, so it looks up no attribute
    twice."""
    names, client_id, watching = frozenset(call.names), call.client_id, frozenset(call.watching)
    also = frozenset(call.also)
    if call.all_owners:
        named = names | also
        return (lambda event: event.name in named) if names else (lambda event: True)
    if not names:
        return lambda event: event.owner == client_id or event.job_id in watching or event.name in also
    if not also:
        return lambda event: event.name in names and (event.owner == client_id or event.job_id in watching)
    return lambda event: (
        event.name in also or (event.name in names and (event.owner == client_id or event.job_id in watching))
    )
