"""Time that moves only when a test says so."""

from __future__ import annotations

START = 1_700_000_000.0  #: a day in 2023: far from zero, so that a time mistaken for a duration shows


class ManualClock:
    """A clock for ``QueueService``.

    >>> clock = ManualClock(100.0)
    >>> clock.advance(2.5)
    102.5
    """

    def __init__(self, start: float = START) -> None:
        self._now = start
        self.set_ahead_s = 0.0  #: what ``ahead_s`` returns

    def now(self) -> float:
        """Return the seconds since the epoch that were set."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Let ``seconds`` pass and return the new time. Raises ValueError for less than nothing."""
        if seconds < 0:
            raise ValueError(f"time does not go back, got {seconds}")
        self._now += seconds
        return self._now

    def ahead_s(self) -> float:
        """Return by how much the machine's clock was set forward, as the test says."""
        return self.set_ahead_s
