"""The service's clock: seconds since the epoch that never jump.

Leases and backoffs must not expire because somebody set the machine's clock, so time is taken from the wall once and
counted monotonically from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Where the service reads the time."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def ahead_s(self) -> float:
        """Return by how many seconds the machine's clock is ahead of this one: it was set, or slept."""
        ...


class SteadyClock:
    """Wall time at the start, plus the monotonic time since. ``wall`` and ``monotonic`` are the machine's."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._offset + self._monotonic()

    def ahead_s(self) -> float:
        """Return by how many seconds the machine's clock is ahead of this one: it was set, or slept."""
        return self._wall() - self.now()
