"""Cron lines against a clock on the wall that is watched minute by minute."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.cron import Cron, CronError

MINUTE_S, DAY_S = 60.0, 86_400.0
#: Zones, and days on which their clocks are put forward or back: by an hour, by half an hour, at midnight, by two.
CHANGES = [
    ("Europe/London", "2023-03-26"),
    ("Europe/London", "2023-10-29"),
    ("America/New_York", "2023-03-12"),
    ("America/New_York", "2023-11-05"),
    ("Australia/Lord_Howe", "2023-10-01"),
    ("Australia/Lord_Howe", "2024-04-07"),
    ("America/Sao_Paulo", "2018-02-18"),  # back from 00:00 to 23:00 of the day before
    ("America/Sao_Paulo", "2018-11-04"),  # forward from 00:00
    ("Antarctica/Troll", "2023-03-26"),
    ("Antarctica/Troll", "2023-10-29"),
    ("Asia/Kathmandu", "2023-06-01"),  # never
]

changes = st.sampled_from(CHANGES)
minutes = st.one_of(st.just(frozenset(range(60))), st.frozensets(st.integers(0, 59), min_size=1, max_size=4))
some_hours = st.frozensets(st.integers(0, 23), min_size=1, max_size=6)
hours = st.one_of(st.just(frozenset(range(24))), some_hours, some_hours)


def watch(zone: ZoneInfo, start: float, days: int, minutes: frozenset[int], hours: frozenset[int]) -> list[float]:
    """Look at the clock each minute and note when a line of these minutes and hours must fire.

    Of every hour: whenever the clock shows it. Else: when the clock first reaches it, or jumps past it.
    """
    found, reached = [], datetime.fromtimestamp(start - MINUTE_S, zone).replace(tzinfo=None)
    for step in range(days * 1_440):
        at = start + step * MINUTE_S
        shown = datetime.fromtimestamp(at, zone).replace(tzinfo=None)
        if len(hours) == 24:
            fires = shown.minute in minutes
        else:
            passed = [
                reached + timedelta(minutes=n) for n in range(1, int((shown - reached) / timedelta(minutes=1)) + 1)
            ]
            fires = any(each.minute in minutes and each.hour in hours for each in passed)
            reached = max(reached, shown)
        if fires:
            found.append(at)
    return found


def line_of(minutes: frozenset[int], hours: frozenset[int]) -> str:
    return f"{','.join(map(str, sorted(minutes)))} {','.join(map(str, sorted(hours)))} * * *"


@settings(max_examples=60)
@given(change=changes, minutes=minutes, hours=hours)
def test_a_line_fires_when_a_watched_clock_says_so(
    change: tuple[str, str], minutes: frozenset[int], hours: frozenset[int]
) -> None:
    zone, day = ZoneInfo(change[0]), change[1]
    start = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zone).timestamp() - 1.5 * DAY_S
    end = start + 3 * DAY_S
    cron = Cron(line_of(minutes, hours), change[0])
    expected = watch(zone, start, 3, minutes, hours)
    found = [each for each in cron.after(start - 1.0, count=len(expected) + 1) if each < end]
    assert found == expected
    assert list(cron.back_from(end - 1.0, first=start)) == expected[::-1]


tokens = st.sampled_from(
    ["*", "0", "59", "60", "-1", "1-5", "5-1", "*/5", "*/0", "L", "mon", "feb", "5#2", "?", "1,2", "W", "/", "30"]
)
texts = st.one_of(
    st.text(max_size=20), st.lists(tokens, max_size=7).map(" ".join), st.text("0123456789*/,-#L? ", max_size=30)
)


@settings(max_examples=300)
@given(text=texts, zone=st.one_of(st.sampled_from(CHANGES).map(lambda change: change[0]), st.text(max_size=12)))
def test_any_text_is_a_line_or_an_error_that_names_its_field(text: str, zone: str) -> None:
    field, found = _read(text, zone)
    assert field in ("", "cron_expression", "timezone")
    assert found == sorted(set(found))


def _read(text: str, zone: str) -> tuple[str, list[float]]:
    """Return the field that is wrong, and the next times if none is."""
    try:
        return "", Cron(text, zone).after(1_700_000_000.0, count=3)
    except CronError as error:
        return error.field, []


@given(change=changes, minutes=minutes, hours=hours, offset=st.floats(-2 * DAY_S, 2 * DAY_S))
def test_the_next_time_is_later_a_whole_second_and_the_same_however_one_asks(
    change: tuple[str, str], minutes: frozenset[int], hours: frozenset[int], offset: float
) -> None:
    asked = datetime.fromisoformat(change[1]).replace(tzinfo=ZoneInfo(change[0])).timestamp() + offset
    cron = Cron(line_of(minutes, hours), change[0])
    following = cron.next_after(asked)
    assert following is not None
    assert following > asked
    assert following == int(following)
    assert cron.next_after((asked + following) / 2) in (following, cron.next_after(following))
    assert cron.next_after(following - 0.5) == following


@settings(max_examples=300)
@given(
    change=changes,
    line=st.tuples(minutes, hours).map(lambda times: line_of(*times)),
    seconds=st.sampled_from(["", "* ", "0,59 "]),
    offset=st.floats(-2 * DAY_S, 2 * DAY_S),
)
def test_a_question_takes_few_searches_also_where_a_clock_is_changed(
    change: tuple[str, str], line: str, seconds: str, offset: float
) -> None:
    asked = datetime.fromisoformat(change[1]).replace(tzinfo=ZoneInfo(change[0])).timestamp() + offset
    cron = Cron(f"{seconds}{line}", change[0])
    cron.next_after(asked)
    assert cron.asked <= 62  # a minute of seconds, where they are shown again
