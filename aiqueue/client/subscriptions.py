"""Who in this process follows events: the streams that share the process's one long poll.

Each has a buffer of what the poll brought. It is bounded: of a reader that is too slow for it the buffer is emptied,
and the stream asks the queue's log for what it missed, a few events at a time, at its reader's pace. So do streams
that begin behind the poll. Nobody's slowness holds memory, and one job's events cost nobody who follows others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple

from aiqueue.protocol import Event

BUFFER = 1_000  #: events that wait for one reader
BUFFER_BYTES = 4 * 2**20  #: of their results, about; the first one may be larger

_NONE = frozenset[str]()


class Interest(NamedTuple):
    """What a reader wants: of ``jobs`` (None: all jobs and what is about none) the events of ``names`` (none: all).

    The events of the names in ``also`` besides, whatever they are about.
    """

    jobs: frozenset[str] | None = None
    names: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether no event is left out."""
        return self.jobs is None and not self.names

    def keys(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return by which jobs and which names its events are found."""
        if self.everything:
            return _NONE, _NONE
        return (_NONE, self.names | self.also) if self.jobs is None else (self.jobs, self.also)

    def covers(self, other: Interest) -> bool:
        """Tell whether nothing that ``other`` wants is missing here."""
        if self.everything or other.everything:
            return self.everything
        return all(theirs <= ours for theirs, ours in zip(other.keys(), self.keys(), strict=True))


class Subscription:
    """One reader's share."""

    def __init__(self, interest: Interest) -> None:
        self.interest = interest
        self.news = asyncio.Event()  #: something is there to be taken or asked for
        self.joined = False  #: the poll asks for all of this
        self.closed = False  #: the client was stopped: nothing comes any more
        self.asked = False  #: the reader is to ask the log once, whatever its cursor
        self._from = 0  # the buffer is complete from behind this number on
        self._buffer: deque[Event] = deque()
        self._bytes = 0

    def lags(self, cursor: int) -> bool:
        """Tell whether a reader at ``cursor`` must ask the log itself before it takes from here."""
        return self.asked or cursor < self._from

    def put(self, event: Event) -> None:
        """Add an event; if there is no room, forget all that waits."""
        _, names, also = self.interest
        if names and event.name not in names and event.name not in also:
            return
        weight = len(event.result)
        if len(self._buffer) >= BUFFER or (self._buffer and self._bytes + weight > BUFFER_BYTES):
            self.start_behind(event.number)
            return
        self._buffer.append(event)
        self._bytes += weight
        self.news.set()

    def start_behind(self, number: int) -> None:
        """Forget what waits: what comes from now on has higher numbers than ``number``."""
        self._buffer.clear()
        self._bytes, self._from = 0, number
        self.news.set()

    def take(self, cursor: int, most: int) -> list[Event]:
        """Remove and return the next events behind ``cursor``."""
        taken: list[Event] = []
        while self._buffer and len(taken) < most:
            event = self._buffer.popleft()
            self._bytes -= len(event.result)
            if event.number > cursor:
                taken.append(event)
        if not self._buffer:
            self.news.clear()
        return taken


class Subscriptions:
    """All subscriptions of a process. ``on_change`` is called when the poll must ask for more than it does."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._all: dict[Subscription, None] = {}
        self._by_name: dict[str, dict[Subscription, None]] = {}
        self._by_job: dict[str, dict[Subscription, None]] = {}
        self._of_everything: dict[Subscription, None] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, subscription: Subscription) -> None:
        """Let ``subscription`` take part; it has joined when the poll asks for what it wants."""
        self._all[subscription] = None
        self._on_change()

    def change(self, subscription: Subscription, interest: Interest) -> None:
        """Let it follow something else from now on."""
        before, subscription.interest = subscription.interest, interest
        if subscription.joined:
            self._unindex(subscription, before)
        if subscription.joined and before.covers(interest):
            self._index(subscription)
        elif subscription in self._all:
            subscription.joined = False
            self._on_change()

    def remove(self, subscription: Subscription) -> None:
        """Let it go."""
        if self._all.pop(subscription, ...) is None and subscription.joined:
            self._unindex(subscription, subscription.interest)

    def close(self) -> None:
        """Tell all readers that nothing comes any more."""
        for subscription in self._all:
            subscription.closed = True
            subscription.news.set()

    def any_joined(self) -> bool:
        """Tell whether the poll asks for any of these."""
        return bool(self._of_everything or self._by_job or self._by_name)

    def joining(self) -> list[Subscription]:
        """Return those that the poll does not know yet."""
        return [subscription for subscription in self._all if not subscription.joined]

    def join(self, joining: Collection[Subscription], cursor: int) -> None:
        """From behind ``cursor`` on the poll asks for what these want too."""
        for subscription in joining:
            if subscription in self._all and not subscription.joined:
                subscription.joined = True
                self._index(subscription)
                subscription.start_behind(cursor)

    @property
    def want_all(self) -> bool:
        """Whether the poll must bring every event."""
        return bool(self._of_everything)

    def wanted(self) -> tuple[set[str], set[str]]:
        """Return the jobs and the names of events that the poll must ask for."""
        return set(self._by_job), set(self._by_name)

    def publish(self, event: Event) -> None:
        """Give an event to those who want it."""
        for subscription in self._of_everything:
            subscription.put(event)
        by_job, by_name = self._by_job.get(event.job_id), self._by_name.get(event.name)
        if by_job or by_name:
            for subscription in {**(by_job or {}), **(by_name or {})}:
                subscription.put(event)

    def lost(self, number: int) -> None:
        """The log could not say what happened up to ``number``: each reader is to ask it and be told so."""
        for subscription in self._all:
            if subscription.joined:
                subscription.asked = True
                subscription.start_behind(number)

    def _index(self, subscription: Subscription) -> None:
        if subscription.interest.everything:
            self._of_everything[subscription] = None
        for table, keys in zip((self._by_job, self._by_name), subscription.interest.keys(), strict=True):
            for key in keys:
                table.setdefault(key, {})[subscription] = None

    def _unindex(self, subscription: Subscription, interest: Interest) -> None:
        self._of_everything.pop(subscription, None)
        for table, keys in zip((self._by_job, self._by_name), interest.keys(), strict=True):
            for key in keys:
                table[key].pop(subscription)
                if not table[key]:
                    del table[key]
