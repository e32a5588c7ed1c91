"""The long polls that wait for events, found by what they wait for: one that an event is not for costs it nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from aiqueue.protocol import Event, EventsCall

Filter = Callable[[Event], bool]


class Reader:
    """A long poll that waits."""

    __slots__ = ("call", "first", "own_only", "patient_until", "waiter", "wants")

    def __init__(self, call: EventsCall, wants: Filter, waiter: asyncio.Future[None], *, patient_until: float) -> None:
        self.call, self.wants, self.waiter = call, wants, waiter
        self.own_only = bool(call.names and not call.all_owners and not call.also)
        """Only what waits for the client's own jobs asks."""
        self.patient_until = patient_until  #: by the loop's clock
        self.first: int | None = None  #: number of the first event for it that came while it waited

    def hear(self, number: int) -> None:
        """Note an event that it is to be answered with."""
        self.first = number if self.first is None else min(number, self.first)

    def wake(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)


class Readers:
    """All of them, at most one of each client."""

    def __init__(self) -> None:
        self._by_client: dict[str, Reader] = {}
        self._by_job: dict[str, dict[Reader, None]] = {}
        self._by_name: dict[str, dict[Reader, None]] = {}
        self._of_all: dict[Reader, None] = {}  # they want every event

    def __len__(self) -> int:
        return len(self._by_client)

    def __iter__(self) -> Iterator[str]:
        """Yield the clients."""
        return iter(self._by_client)

    def add(self, reader: Reader) -> None:
        """Let a client's reader wait."""
        self._by_client[reader.call.client_id] = reader
        for index, key in self._places(reader):
            index.setdefault(key, {})[reader] = None
        if reader.call.all_owners and not reader.call.names:
            self._of_all[reader] = None

    def remove(self, reader: Reader) -> None:
        """Forget a reader, if it is there."""
        if self._by_client.get(reader.call.client_id) is reader:
            del self._by_client[reader.call.client_id]
        for index, key in self._places(reader):
            if (there := index.get(key)) is not None:
                there.pop(reader, None)
                if not there:
                    del index[key]
        self._of_all.pop(reader, None)

    def pop(self, client_id: str) -> Reader | None:
        """Remove and return a client's reader."""
        reader = self._by_client.get(client_id)
        if reader is not None:
            self.remove(reader)
        return reader

    def of(self, event: Event) -> Iterator[Reader]:
        """Yield those that may want an event, some of them twice."""
        if own := self._by_client.get(event.owner):
            yield own
        yield from self._by_job.get(event.job_id, ())
        yield from self._by_name.get(event.name, ())
        yield from self._of_all

    def own_only(self, clients: Iterable[str]) -> Iterator[Reader]:
        """Yield the readers of these clients that wait for their own jobs alone."""
        for client_id in clients:
            reader = self._by_client.get(client_id)
            if reader is not None and reader.own_only:
                yield reader

    def _places(self, reader: Reader) -> Iterator[tuple[dict[str, dict[Reader, None]], str]]:
        call = reader.call
        names = [*call.names, *call.also] if call.all_owners else call.also
        yield from ((self._by_name, name) for name in names)
        yield from ((self._by_job, job_id) for job_id in call.watching)


def filter_of(call: EventsCall) -> Filter:
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
