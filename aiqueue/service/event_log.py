"""The numbered log of events, and the long polls that wait on it.

The log is a bounded window. A reader asks for what came after its cursor; one that fell behind the window is told so
(``gap``) and looks its jobs up instead. Nobody's slowness holds memory or the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import accumulate

from aiqueue.errors import TooManyPolls
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import END_EVENTS, Event, EventsCall, EventsReply
from aiqueue.service.event_readers import Filter, Reader, Readers, filter_of
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
        if not (fits and self.open):
            self.stop()
        return fits

    def stop(self) -> None:
        """Let the submit be answered with what has come."""
        if not self.done.done():
            self.done.set_result(None)


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
        self._parked = Readers()
        self._lingering: dict[str, _Lingering] = {}  #: by job id
        self._closed = False
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
        self._bytes += _weigh(events)
        self._trim()
        told = self._tell_lingering(events) if self._lingering else {}
        if self._parked:
            self._tell_readers(events, told)

    def _tell_readers(self, events: list[Event], told: Mapping[str, AbstractSet[int]]) -> None:
        loop = asyncio.get_running_loop()
        for reader in self._parked.own_only(told):
            # Who lingered for an event has it; its long poll need not wake for that one, unless the answer got lost.
            reader.hear(min(told[reader.call.client_id]))
            loop.call_later(_LATER_S, reader.wake)
        for event in events:
            for reader in self._parked.of(event):
                if reader.own_only and event.number in told.get(reader.call.client_id, _NONE):
                    continue
                if reader.wants(event):
                    if reader.first is None:
                        loop.call_at(reader.patient_until, reader.wake)
                    reader.hear(event.number)
                    if event.level == _URGENT or reader.patient_until <= loop.time():
                        reader.wake()

    async def linger(self, client_id: str, job_ids: Iterable[str], wait_s: float) -> list[Event]:
        """Wait a moment for the ends of these jobs; return those that came. All or the time over: whichever is first.

        For a submit that waits for its results anyway: a fast job then costs its client one call and not two.
        """
        if self._closed:
            return []
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
        wants = filter_of(call)
        reply = self._collect(call, wants)
        if not reply.events and not reply.gap:
            first = await self._park(call, wants)
            reply = self._collect(call, wants, first)
        self._answered[call.client_id] = asyncio.get_running_loop().time()
        if len(self._answered) > _MAX_REMEMBERED:
            self._answered.clear()
        return reply

    def close(self) -> None:
        """Send all waiting readers home, and answer the submits that linger. None lingers from now on."""
        self._closed = True
        for client_id in list(self._parked):
            self._send_home(client_id)
        for group in self._lingering.values():
            group.stop()

    async def _park(self, call: EventsCall, wants: Filter) -> int:
        """Wait for an event; return the number of the first one to look at."""
        if len(self._parked) >= self._max_polls and call.wait_s > 0:
            raise TooManyPolls(f"{self._max_polls} clients wait for events already", _BUSY_RETRY_S)
        waiter = asyncio.get_running_loop().create_future()
        patient_until = self._answered.get(call.client_id, -_EVERY_S) + _EVERY_S
        reader = Reader(call, wants, waiter, patient_until=patient_until)
        self._parked.add(reader)
        try:
            await done_within(waiter, call.wait_s)
        finally:
            self._parked.remove(reader)
        return self.last + 1 if reader.first is None else reader.first

    def _send_home(self, client_id: str) -> None:
        if reader := self._parked.pop(client_id):
            reader.hear(self.last + 1)  # of what is published before it looks it is told no more
            reader.wake()

    def _collect(self, call: EventsCall, wants: Filter, first: int = 0) -> EventsReply:
        """Return what the client wants from event ``first`` on: what came before it was looked at already."""
        start = max(call.after + 1, first) - self._first
        if not 0 <= start <= len(self._events):  # behind the window; or ahead of a journal that lost its end
            restart = self._events[self.restart - self._first] if self._first <= self.restart <= self.last else None
            told = [restart] if restart and restart.number > call.after and wants(restart) else []
            return EventsReply(told, self.last, gap=True)  # of a restart behind the window too
        found: list[Event] = []
        size = 0
        for at in range(start, len(self._events), _SLICE):
            wanted = [event for event in self._events[at : at + _SLICE] if wants(event)]
            size += _weigh(wanted)
            found += wanted
            if len(found) >= call.limit or size > _REPLY_BYTES:
                del found[max(1, min(call.limit, _count_within(found, _REPLY_BYTES))) :]
                return EventsReply(found, found[-1].number)
        return EventsReply(found, max(call.after, self.last))

    def _trim(self) -> None:
        # A quarter at a time: deleting from the front of a list moves all the rest.
        while self._events and (len(self._events) > self._max_events * 5 // 4 or self._bytes > self._max_bytes):
            drop = max(1, len(self._events) - self._max_events, len(self._events) // 4)
            self._bytes -= _weigh(self._events[:drop])
            del self._events[:drop]
            self._first += drop


def _weigh(events: Iterable[Event]) -> int:
    """Return about how many bytes events take: the sum of their ``_weight``, without a call for each."""
    return sum([len(event.result) + len(event.data) + _EVENT_BYTES for event in events])


def _weight(event: Event) -> int:
    """Return about how many bytes an event takes."""
    return len(event.result) + len(event.data) + _EVENT_BYTES


def _count_within(events: list[Event], limit: int) -> int:
    """Return how many of the first events have together at most ``limit`` bytes."""
    for count, size in enumerate(accumulate(map(_weight, events))):
        if size > limit:
            return count
    return len(events)
