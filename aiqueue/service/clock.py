"""The queue's clock: seconds since the epoch that never jump, nor go back, over restarts too.

Nothing may expire because somebody set the machine's clock, so the time of day is read once, and counted on from there
with what nobody can set. That is Linux's CLOCK_BOOTTIME, not CLOCK_MONOTONIC, which stands still while the machine is
suspended: an hour of a laptop's sleep is an hour. Where the count stands is journaled, and the next process goes on
from it. docs/time.md says which time is measured by which clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aiqueue.engine.counters import SAME_CLOCK_S, ClockMark

# On macOS CLOCK_MONOTONIC counts sleep, and time.monotonic does not.
_COUNT = getattr(time, "CLOCK_BOOTTIME", None) or getattr(time, "CLOCK_MONOTONIC", None)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Where the service reads the time."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def ahead_s(self) -> float:
        """Return by how many seconds the machine's clock is ahead of this one: somebody set it."""
        ...

    def resume(self, last: ClockMark) -> ClockMark:
        """Go on from where the last process's clock stood; return where this one stands."""
        ...


def counted_s() -> float:
    """Return the seconds since the machine booted, suspends included."""
    return time.monotonic() if _COUNT is None else time.clock_gettime(_COUNT)


def boot_id() -> str:
    """Return what names this boot of the machine; empty where nothing does."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class SteadyClock:
    """The time of day at the first start, plus the seconds counted since.

    ``wall``, ``counted`` and ``boot`` are the machine's: its time of day, which people set, its seconds since the boot,
    and what names the boot.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        counted: Callable[[], float] = counted_s,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self._wall, self._counted, self._boot = wall, counted, boot
        self._offset = wall() - counted()

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._offset + self._counted()

    def ahead_s(self) -> float:
        """Return by how many seconds the machine's clock is ahead of this one: somebody set it."""
        return self._wall() - self.now()

    def resume(self, last: ClockMark) -> ClockMark:
        """Go on from where the last process's clock stood; return where this one stands.

        In the same boot of the machine the count goes on, exact whatever was done to the time of day. After another
        boot only the time of day can tell how long the queue was away; a clock that was put back says: not at all.
        """
        boot = self._boot()
        if last.now:
            away_s = max(0.0, self._wall() - (last.now + last.ahead_s))
            offset = last.offset if boot and boot == last.boot else last.now + away_s - self._counted()
            self._offset = max(offset, last.now - self._counted())
        ahead_s = self.ahead_s()
        return ClockMark(
            now=last.now, ahead_s=ahead_s if abs(ahead_s) > SAME_CLOCK_S else 0.0, boot=boot, offset=self._offset
        )
