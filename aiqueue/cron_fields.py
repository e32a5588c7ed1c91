"""What a clock on the wall must show for a cron line to fire. Clocks count as UTC does here; zones are added elsewhere.

croniter reads the line. The search for the next time is ours, because the queue searches on its event loop and croniter
takes 0.1 ms for common times and 10 ms for days that never come. Both find the same times.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache

from croniter import croniter

_DAY_S = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_YEARS = 50  # a day that does not come within so many years never comes
_ANY = "*"


class Fields:
    """The fields of one line. It never changes, so schedules of the same line share it."""

    __slots__ = (
        "_days",
        "_hours",
        "_last_day",
        "_minutes",
        "_months",
        "_nearest",
        "_nths",
        "_of",
        "_seconds",
        "_weekdays",
    )

    def __init__(self, line: str) -> None:
        """Raises what croniter raises: see ``aiqueue.cron``."""
        read = croniter(line, 0.0, ret_type=float, second_at_beginning=True)
        minutes, hours, days, months, weekdays, *seconds = (list[object](field) for field in read.expanded)
        self._minutes, self._hours = _numbers(minutes, range(60)), _numbers(hours, range(24))
        self._seconds = _numbers(seconds[0], range(60)) if seconds else (0,)
        self._months = frozenset(_numbers(months, range(1, 13)))
        self._days = None if _ANY in days else _only_numbers(days)
        self._last_day = "l" in days
        self._weekdays = None if _ANY in weekdays else _only_numbers(weekdays)
        named: Mapping[int, Iterable[object]] = read.nth_weekday_of_month
        self._nths = tuple((day, nth) for day, nths in named.items() for nth in nths)
        self._nearest = tuple(read.nearest_weekday)
        self._of: dict[tuple[int, int], tuple[int, ...]] = {}  # days of a month, by its first weekday and its length

    @property
    def every_hour(self) -> bool:
        """Whether the line fires in every hour."""
        return len(self._hours) == 24

    def next_after(self, shown: float) -> float | None:
        """Return the first time after ``shown`` at which the line fires; None if there is none for 50 years."""
        days, second = divmod(int(shown // 1) + 1, _DAY_S)
        today = date.fromordinal(_EPOCH + days)
        time = self._time_from(second) if self._has(today) else None
        if time is None:
            time = self._hours[0] * 3_600 + self._minutes[0] * 60 + self._seconds[0]
            found = self._day_after(today)
            if found is None:
                return None
            days = found - _EPOCH
        return float(days * _DAY_S + time)

    def _time_from(self, second: int) -> int | None:
        """Return the first time of a day at or after ``second``, both in seconds since its midnight."""
        hour, second = divmod(second, 3_600)
        minute, second = divmod(second, 60)
        if _is_in(self._hours, hour):
            if _is_in(self._minutes, minute) and (at := bisect_left(self._seconds, second)) < len(self._seconds):
                return hour * 3_600 + minute * 60 + self._seconds[at]
            if (at := bisect_right(self._minutes, minute)) < len(self._minutes):
                return hour * 3_600 + self._minutes[at] * 60 + self._seconds[0]
        if (at := bisect_right(self._hours, hour)) < len(self._hours):
            return self._hours[at] * 3_600 + self._minutes[0] * 60 + self._seconds[0]
        return None

    def _has(self, day: date) -> bool:
        return day.month in self._months and day.day in self._days_of(day.year, day.month)

    def _day_after(self, today: date) -> int | None:
        """Return the ordinal of the first day after ``today`` on which the line fires."""
        year, month, after = today.year, today.month, today.day
        while year <= today.year + _YEARS:
            if month in self._months:
                days = self._days_of(year, month)
                if days and days[-1] > after:
                    return date(year, month, days[bisect_right(days, after)]).toordinal()
            year, month, after = (year, month + 1, 0) if month < 12 else (year + 1, 1, 0)
        return None

    def _days_of(self, year: int, month: int) -> tuple[int, ...]:
        """Return the days of a month on which the line fires: they depend on its first weekday and its length alone."""
        first, length = monthrange(year, month)
        days = self._of.get((first, length))
        if days is None:
            days = self._of[first, length] = tuple(sorted(self._choose((first + 1) % 7, length)))
        return days

    def _choose(self, first: int, length: int) -> set[int]:
        """Return the days of a month whose first day is weekday ``first``; Sunday is 0, as in the line.

        Where both the day and the weekday are given, either is enough; what ``#``, ``L`` and ``W`` say always counts.
        """
        every = set(range(1, length + 1))
        by_day, by_weekday = every, every
        if self._days is not None:
            by_day = {day for day in self._days if day <= length} | ({length} if self._last_day else set())
        if self._weekdays is not None:
            by_weekday = {day for day in every if (first + day - 1) % 7 in self._weekdays}
        either = self._days is not None and self._weekdays is not None
        near = {_nearest_workday(day, first, length) for day in self._nearest} if self._nearest else None
        nth = set(_nth_days(self._nths, first, length)) if self._nths else None
        if near is not None:
            by_day = near
        if nth is not None:
            by_weekday = nth
        if either:
            return (by_day & (every if nth is None else nth)) | (by_weekday & (every if near is None else near))
        return by_day & by_weekday


@lru_cache(maxsize=4_096)
def fields_of(line: str) -> Fields:
    """Return the fields of a line: reading it takes as long as many searches, and many schedules share a line."""
    return Fields(line)


def _numbers(field: list[object], every: range) -> tuple[int, ...]:
    return tuple(every) if _ANY in field else tuple(sorted(_only_numbers(field)))


def _only_numbers(field: list[object]) -> frozenset[int]:
    return frozenset(each for each in field if isinstance(each, int))


def _is_in(numbers: tuple[int, ...], number: int) -> bool:
    at = bisect_left(numbers, number)
    return at < len(numbers) and numbers[at] == number


def _nth_days(nths: Iterable[tuple[int, object]], first: int, length: int) -> Iterable[int]:
    """Yield the second Monday and its like; ``l`` stands for the last one."""
    for weekday, nth in nths:
        days = range(1 + (weekday - first) % 7, length + 1, 7)
        if not isinstance(nth, int):
            yield days[-1]
        elif nth <= len(days):
            yield days[nth - 1]


def _nearest_workday(day: int, first: int, length: int) -> int:
    """Return the day from Monday to Friday that is nearest to ``day`` in its month."""
    day = min(day, length)
    weekday = (first + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day
