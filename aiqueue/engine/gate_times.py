"""The gates that wait for a time, in a heap: how many others there are costs nothing."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count
from typing import Generic, Protocol, TypeVar


class Waits(Protocol):
    """What is asked of a gate."""

    closed_until: float

    def next_at(self, now: float) -> float | None:
        """Return when time alone may open the gate; None if it is not time that it waits for."""
        ...


G = TypeVar("G", bound=Waits)


class _Entry(Generic[G]):
    """A gate in the heap. An entry that is not the gate's last one counts no more."""

    __slots__ = ("closed", "gate")

    def __init__(self, gate: G) -> None:
        self.gate, self.closed = gate, gate.closed_until > 0.0


class GateTimes(Generic[G]):
    """Each gate stands there once, by a time that may be too early but never too late."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Entry[G]]] = []
        self._listed: dict[int, _Entry[G]] = {}  # by the gate's id(); an entry keeps its gate
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._heap)

    def note(self, gate: G) -> None:
        """There is a time that the gate may wait for; when it is, is found out when it is looked at."""
        listed = self._listed.get(id(gate))
        if listed is None or listed.closed != (gate.closed_until > 0.0):  # it waits for something else
            self._list(gate, gate.closed_until)

    def take(self, now: float) -> list[G]:
        """Return the gates whose time may have come."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            if gate := self._unlist():
                taken.append(gate)
        for gate in taken:
            self._list(gate, gate.closed_until)  # it may wait for another time, or still for this one
        return taken

    def next_at(self, now: float) -> float | None:
        """Return when the next gate may let something through because of time alone."""
        while self._heap:
            listed, _, entry = self._heap[0]
            if self._listed.get(id(entry.gate)) is not entry:
                heapq.heappop(self._heap)
                continue
            at = entry.gate.closed_until or entry.gate.next_at(now)
            if at == listed:
                return at
            self._unlist()
            if at is not None:
                self._list(entry.gate, at)
        return None

    def keep(self, gates: Iterable[G]) -> None:
        """Forget all gates but these."""
        kept = {id(gate) for gate in gates}
        self._listed = {key: entry for key, entry in self._listed.items() if key in kept}

    def _list(self, gate: G, at: float) -> None:
        entry = self._listed[id(gate)] = _Entry(gate)
        heapq.heappush(self._heap, (at, next(self._numbers), entry))

    def _unlist(self) -> G | None:
        """Take the first entry; return its gate, if the entry counts."""
        _, _, entry = heapq.heappop(self._heap)
        if self._listed.get(id(entry.gate)) is not entry:
            return None
        del self._listed[id(entry.gate)]
        return entry.gate
