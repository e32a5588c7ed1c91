"""The times that the fields of a line name, against croniter, which reads the line and finds them in its own way."""

from __future__ import annotations

from croniter import CroniterBadDateError, croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.cron import _LAST
from aiqueue.cron_fields import Fields

YEAR_S = 366 * 86_400.0


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    """Return ways to write one field: everything, a number, a list, a range, steps."""
    one = st.integers(low, high)
    written = one.map(str)
    return st.one_of(
        st.sampled_from(["*", "*", "*/2", "*/7"]),
        written,
        st.lists(written, min_size=2, max_size=4).map(",".join),
        st.tuples(one, one).map(lambda ends: f"{min(ends)}-{max(ends)}"),
        st.tuples(one, st.integers(1, 20)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    )


rare_days = st.sampled_from(["L", "31", "30", "29", "29,L", "1W", "31W", "15W", "?"])
rare_weekdays = st.sampled_from(["mon#5", "sun#1", "fri#2,tue#4", "L5", "mon-fri", "7", "0-6", "1-7", "?", "sat-mon"])
days = st.one_of(numbers(1, 31), rare_days)
months = st.one_of(numbers(1, 12), st.sampled_from(["2", "feb,apr", "2,4,6,9,11"]))
weekdays = st.one_of(numbers(0, 6), rare_weekdays)
times = st.tuples(numbers(0, 59), numbers(0, 23), days, months, weekdays).map(" ".join)
lines = st.one_of(times, st.tuples(numbers(0, 59), times).map(" ".join))
moments = st.one_of(
    st.integers(0, 4_000_000_000).map(float),
    st.floats(0, 4_000_000_000),
    st.sampled_from([951_782_400.0, 1_709_164_799.0, 1_709_164_800.0, 4_107_456_000.0]),  # around leap days
)


def croniters_next(reader: croniter, after: float) -> float | None:
    try:
        return float(reader.get_next(float, start_time=after))
    except CroniterBadDateError:
        return None


@settings(max_examples=500)
@given(line=lines, after=moments)
def test_the_next_times_are_those_that_croniter_finds(line: str, after: float) -> None:
    fields, reader = Fields(line), croniter(line, 0.0, ret_type=float, second_at_beginning=True)
    for _ in range(4):
        expected, found = croniters_next(reader, after), fields.next_after(after)
        if expected is None and _is_split(line):
            return  # croniter gives up where one of the two days never comes, though the other one does
        assert found == expected
        if found is None:
            return
        after = found


def _is_split(line: str) -> bool:
    """Tell whether day and weekday are both given, one of them by ``#``, ``L`` or ``W``."""
    day, weekday = line.split()[-3], line.split()[-1]
    return not {day, weekday} & {"*", "?"} and bool(set(f"{day}{weekday}") & set("#LW"))


@settings(max_examples=200)
@given(line=lines, after=st.floats(-YEAR_S, _LAST))
def test_the_next_time_is_a_later_whole_second_and_the_same_from_any_moment_before_it(line: str, after: float) -> None:
    fields = Fields(line)
    found = fields.next_after(after)
    if found is not None:
        assert found > after
        assert found == int(found)
        assert {fields.next_after(between) for between in (found - 1.0, found - 0.5, (after + found) / 2)} == {found}


@given(line=lines, after=moments)
def test_the_days_of_a_month_are_worked_out_once(line: str, after: float) -> None:
    """However long the search: a month is one of 28, by its first weekday and its length."""
    chosen: list[tuple[int, int]] = []

    class Counted(Fields):
        def _choose(self, first: int, length: int) -> set[int]:
            chosen.append((first, length))
            return super()._choose(first, length)

    fields = Counted(line)
    for _ in range(3):
        fields.next_after(after)
    assert len(chosen) == len(set(chosen)) <= 28
