"""Time that moves only when a test says so."""

from __future__ import annotations

from aiqueue.engine.counters import ClockMark

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

    def resume(self, last: ClockMark) -> ClockMark:
        """Stay where the test has put it."""
        return ClockMark(now=last.now, ahead_s=self.set_ahead_s)


class ManualMachine:
    """A machine's clocks, for a ``SteadyClock``: people set the time of day, and it sleeps and boots when told to.

    >>> machine = ManualMachine()
    >>> machine.suspend(60.0)
    >>> machine.set_by(-3_600.0)
    >>> machine.wall() - START, machine.counted()
    (-3540.0, 1060.0)
    """

    def __init__(self) -> None:
        self._wall, self._counted, self._boots = START, 1_000.0, 1

    def wall(self) -> float:
        """Return the time of day: time.time."""
        return self._wall

    def counted(self) -> float:
        """Return the seconds since the boot: CLOCK_BOOTTIME."""
        return self._counted

    def boot(self) -> str:
        """Return what names this boot."""
        return f"boot-{self._boots}"

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self._wall += seconds
        self._counted += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: its clocks go on, and no process runs."""
        self.run(seconds)

    def set_by(self, seconds: float) -> None:
        """Put the time of day forward, or back."""
        self._wall += seconds

    def reboot(self, off_s: float = 0.0) -> None:
        """Switch the machine off and on again."""
        self._wall += off_s
        self._counted, self._boots = 10.0, self._boots + 1
