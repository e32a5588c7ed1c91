"""When a cron line fires: pure arithmetic on times, for five fields, six (seconds first) and ``@daily`` and its like.

``cron_fields`` finds the next time at which a clock on the wall shows what the line asks for; the time zone is added
here, because a clock that is put forward or back needs a rule:

- A line that fires in *every* hour follows the clock: what the clock never shows does not fire, and what it shows
  twice fires twice. Every hour on the half hour stays every hour.
- A line that names *some* hours fires once for each time it names: at the first of two equal times, and where the
  clock jumps over the time, at the moment of the jump. A daily run stays daily.

All times are seconds since the epoch. The only thing read is the time zone database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from math import ceil, floor
from zoneinfo import ZoneInfo

from croniter import CroniterError

from aiqueue.cron_fields import fields_of

MAX_LENGTH = 256  #: characters of a line
_FIELDS = {5: "minute hour day month weekday", 6: "second minute hour day month weekday"}
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_RANDOM = re.compile(r"(?<![a-z])[hr](?![a-z])", re.IGNORECASE)  # croniter's "drawn once": not the same twice
_NEAR_S = 4 * 3_600.0  # a clock is put back by less than this
_MINUTE_S = 60.0
_LAST = 250_000_000_000.0  # in the year 9892; datetime ends soon after


class CronError(ValueError):
    """The line can't be understood, never fires, or its time zone is not known; ``field`` is the one to blame."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class _NeverError(Exception):
    """No clock shows what the line asks for, for the next 50 years."""


class Cron:
    """One line in one time zone. Raises CronError for what it does not understand.

    >>> daily = Cron("30 1 * * *", "Europe/London")
    >>> [str(datetime.fromtimestamp(at, UTC)) for at in daily.after(1_698_400_000.0, count=3)]
    ['2023-10-28 00:30:00+00:00', '2023-10-29 00:30:00+00:00', '2023-10-30 01:30:00+00:00']
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        line = _plain(expression)
        self._zone = _zone(timezone)
        try:
            self._fields = fields_of(line)
        except (CroniterError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise CronError("cron_expression", f"{expression!r} is not a cron line: {error}") from None
        self._every_hour = self._fields.every_hour
        self.asked = 0  #: searches for what a clock must show, so far: what the queue measures its work by

    def next_after(self, at: float) -> float | None:
        """Return the first time after ``at`` at which the line fires; None if it never does (again)."""
        try:
            return self._as_the_clock_shows(at) if self._every_hour else self._once_for_each(at)
        except (_NeverError, OverflowError, OSError, ValueError):  # no such day, or past the year 9999
            return None

    def after(self, at: float, *, count: int) -> list[float]:
        """Return the next ``count`` times after ``at``; fewer if the line does not fire as often."""
        found: list[float] = []
        following = self.next_after(at)
        while following is not None and len(found) < count:
            found.append(following)
            following = self.next_after(following)
        return found

    def back_from(self, until: float, *, first: float) -> Iterator[float]:
        """Yield the times at which the line fires, from the last one at or before ``until`` back to ``first``.

        The way back is found by asking forward, so it costs a few questions per time, however long it is.
        """
        step, before, first = 1.0, floor(until) + 1.0, float(ceil(first))  # the times are whole seconds
        while (found := self._last_before(before, first, step)) is not None:
            yield found
            step, before = max(1.0, before - found), found

    def _last_before(self, end: float, first: float, step: float) -> float | None:
        """Return the last time in [``first``, ``end``); ``step`` is a guess at how far back it lies."""
        low = end - step
        while (found := self._next_before(low, end)) is None:
            if low < first:
                return None
            step *= 2
            low = end - step
        if found < first and (found := self._next_before(first - 1, end)) is None:
            return None
        high = end  # fires at found, and not in [high, end)
        while (following := self._next_before(found, end)) is not None:
            middle = (following + high) / 2
            later = self._next_before(middle, end)
            if later is None:
                found, high = following, middle
            else:
                found = later
        return found

    def _next_before(self, at: float, end: float) -> float | None:
        """Return the first time after ``at`` if it is before ``end``."""
        following = self.next_after(at)
        return following if following is not None and following < end else None

    # --- the two rules ---

    def _as_the_clock_shows(self, at: float) -> float:
        shown = self._shown_after(self._local(at))
        while True:
            fires = shown - self._offset(at)
            jump = self._next_jump(at, min(at + _NEAR_S, fires))
            if jump is None and self._local(fires) != shown:
                jump = self._next_jump(at, fires)
            if jump is None:
                return fires
            at = jump
            shown = self._shown_after(self._local(jump) - 1.0)  # the first moment after the jump counts too

    def _once_for_each(self, at: float) -> float:
        shown = self._shown_after(self._settled(at))
        while (fires := self._first_moment(shown)) <= at:
            shown = self._shown_after(shown)
        return fires

    def _settled(self, at: float) -> float:
        """Return what the clock shows at ``at``; when it shows that for the second time, the last such minute."""
        shown = self._local(at)
        while self._first_moment(shown + _MINUTE_S) <= at:
            shown += _MINUTE_S
        return shown

    def _first_moment(self, shown: float) -> float:
        """Return when the clock first shows ``shown``, or when it jumps over it."""
        moment = shown - self._offset_of(shown)
        if self._local(moment) == shown:
            return moment
        early = shown - self._offset_of(shown, fold=1)
        jump = self._next_jump(early - 1.0, moment)
        return moment if jump is None else jump

    # --- clocks ---

    def _shown_after(self, shown: float) -> float:
        """Return the next thing that a clock must show; clocks count as UTC does."""
        if shown > _LAST:
            raise OverflowError
        self.asked += 1
        found = self._fields.next_after(shown)
        if found is None:
            raise _NeverError
        return found

    def _local(self, at: float) -> float:
        """Return what the clock shows at ``at``."""
        return at + self._offset(at)

    def _offset(self, at: float) -> float:
        """Return by how much the clock is ahead of UTC at ``at``: whole seconds."""
        offset = datetime.fromtimestamp(at, self._zone).utcoffset()
        assert offset is not None
        return offset.total_seconds()

    def _offset_of(self, shown: float, *, fold: int = 0) -> float:
        """Return the zone's offset when the clock shows ``shown``."""
        offset = datetime.fromtimestamp(shown, UTC).replace(tzinfo=self._zone, fold=fold).utcoffset()
        assert offset is not None
        return offset.total_seconds()

    def _next_jump(self, at: float, end: float) -> float | None:
        """Return a moment in (``at``, ``end``] from which on the clock has another offset, if there is one."""
        before = self._offset(at)
        if self._offset(end) == before:
            return None
        low, high = int(at // 1), int(-(-end // 1))
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return float(high)


def check(expression: str, timezone: str, *, now: float) -> Cron:
    """Return the line. Raises CronError also if it never fires after ``now``: 30 February, 31 June."""
    found = Cron(expression, timezone)
    if found.next_after(now) is None:
        raise CronError("cron_expression", f"{expression!r} never fires: no such day comes in the next 50 years")
    return found


def _plain(expression: str) -> str:
    """Return the line with its fields in croniter's reach, or say what is wrong with it."""
    field, line = "cron_expression", " ".join(expression.split())
    if len(expression) > MAX_LENGTH:
        raise CronError(field, f"has {len(expression)} characters, over the limit of {MAX_LENGTH}")
    if line.startswith("@"):
        if line.lower() not in _NAMED:
            raise CronError(field, f"{line!r} is not known; there are: {', '.join(_NAMED)}")
        return _NAMED[line.lower()]
    count = len(line.split())
    if count not in _FIELDS:
        known = "; or ".join(f"{number}: {names}" for number, names in _FIELDS.items())
        raise CronError(field, f"{expression!r} has {count} fields; a cron line has {known}")
    if _RANDOM.search(line):
        raise CronError(field, f"{expression!r}: H and R stand for times drawn at random; give times, and a jitter")
    return line


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder, a path out of the database, no such file
        message = f"unknown time zone {name!r}; give an IANA name such as Europe/London, or UTC"
        raise CronError("timezone", message) from None
