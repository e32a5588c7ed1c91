"""When cron lines fire: around changes of clocks, on leap days, and what is no cron line at all."""

from __future__ import annotations

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from aiqueue.cron import MAX_LENGTH, Cron, CronError, check

LONDON, NEW_YORK, LORD_HOWE = "Europe/London", "America/New_York", "Australia/Lord_Howe"
SAO_PAULO = "America/Sao_Paulo"


def at(text: str, zone: str = "UTC") -> float:
    """Seconds since the epoch of a local time, the first of two equal ones."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def fires(line: str, zone: str, after: str, count: int) -> list[str]:
    """The next local times, with their offsets, from the second one on without the day."""
    found = Cron(line, zone).after(at(after, zone), count=count)
    return [datetime.fromtimestamp(each, ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for each in found]


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        # Clocks go forward: 01:00 becomes 02:00 in London, 02:00 becomes 03:00 in New York, 02:00 becomes 02:30 on
        # Lord Howe. What the clock jumps over fires at the jump, if it is named; a day is never left out.
        ("30 1 * * *", LONDON, "2023-03-25T12:00", ["03-26 02:00+0100", "03-27 01:30+0100"]),
        ("0,20,40 1 * * *", LONDON, "2023-03-25T12:00", ["03-26 02:00+0100", "03-27 01:00+0100"]),
        ("0 1,2 * * *", LONDON, "2023-03-25T12:00", ["03-26 02:00+0100", "03-27 01:00+0100"]),
        ("30 2 * * *", NEW_YORK, "2023-03-11T12:00", ["03-12 03:00-0400", "03-13 02:30-0400"]),
        ("15 2 * * *", LORD_HOWE, "2023-09-30T12:00", ["10-01 02:30+1100", "10-02 02:15+1100"]),
        ("45 2 * * *", LORD_HOWE, "2023-09-30T12:00", ["10-01 02:45+1100", "10-02 02:45+1100"]),
        # A line of every hour fires when the clock shows it, and only then.
        ("30 * * * *", LONDON, "2023-03-26T00:00", ["03-26 00:30+0000", "03-26 02:30+0100"]),
        ("*/30 * * * *", NEW_YORK, "2023-03-12T01:00", ["03-12 01:30-0500", "03-12 03:00-0400", "03-12 03:30-0400"]),
        ("15 * * * *", LORD_HOWE, "2023-10-01T01:00", ["10-01 01:15+1030", "10-01 03:15+1100"]),
        # Clocks go back: 01:00 to 02:00 comes twice in London and New York, 01:30 to 02:00 on Lord Howe. Once for what
        # names its hours.
        ("30 1 * * *", LONDON, "2023-10-28T12:00", ["10-29 01:30+0100", "10-30 01:30+0000"]),
        ("30 1 * * *", NEW_YORK, "2023-11-04T12:00", ["11-05 01:30-0400", "11-06 01:30-0500"]),
        ("45 1 * * *", LORD_HOWE, "2024-04-06T12:00", ["04-07 01:45+1100", "04-08 01:45+1030"]),
        ("0,30 0-2 * * *", LONDON, "2023-10-29T00:30", ["10-29 01:00+0100", "10-29 01:30+0100", "10-29 02:00+0000"]),
        # Twice for a line of every hour: that is every hour.
        (
            "30 * * * *",
            LONDON,
            "2023-10-29T00:00",
            ["10-29 00:30+0100", "10-29 01:30+0100", "10-29 01:30+0000", "10-29 02:30+0000"],
        ),
        (
            "30 0-23 * * *",
            NEW_YORK,
            "2023-11-05T01:00",
            ["11-05 01:30-0400", "11-05 01:30-0500", "11-05 02:30-0500"],
        ),
        (
            "*/15 * * * *",
            LORD_HOWE,
            "2024-04-07T01:15",
            ["04-07 01:30+1100", "04-07 01:45+1100", "04-07 01:30+1030", "04-07 01:45+1030", "04-07 02:00+1030"],
        ),
        # Far away, on the other side of a change; and on a day whose last hour comes twice.
        ("30 * 1 * *", LONDON, "2023-10-02T00:00", ["11-01 00:30+0000", "11-01 01:30+0000"]),
        ("30 * 1 * *", LONDON, "2023-03-02T00:00", ["04-01 00:30+0100", "04-01 01:30+0100"]),
        ("30 * 17 2,12 *", SAO_PAULO, "2018-02-17T23:00", ["02-17 23:30-0200", "02-17 23:30-0300", "12-17 00:30-0200"]),
        # What names one day of a month counts alone; else the day and the weekday both count.
        ("0 0 1 * mon#2", "UTC", "2026-11-27T00:00", ["12-14 00:00+0000", "01-11 00:00+0000"]),
        ("0 0 13 * L5", "UTC", "2026-11-27T00:00", ["12-25 00:00+0000", "01-29 00:00+0000"]),
        ("0 0 15W * mon", "UTC", "2026-11-27T00:00", ["12-15 00:00+0000", "01-15 00:00+0000"]),
        ("0 0 1 * mon", "UTC", "2026-11-27T00:00", ["11-30 00:00+0000", "12-01 00:00+0000", "12-07 00:00+0000"]),
        # A zone that went over the date line had no 30 December.
        ("0 9 * * *", "Pacific/Apia", "2011-12-29T12:00", ["12-31 00:00+1400", "12-31 09:00+1400"]),
    ],
)
def test_clocks_that_are_changed_leave_out_no_day_and_repeat_none(
    line: str, zone: str, after: str, expected: list[str]
) -> None:
    assert fires(line, zone, after, len(expected)) == expected


@pytest.mark.parametrize("line", ["30 1 * * *", "*/20 * * * *", "0 */3 * * *"])
def test_a_time_asked_for_in_the_repeated_hour_is_answered_with_a_later_one(line: str) -> None:
    second = at("2023-10-29T01:00:00", LONDON) + 3_600.0  # 01:00 for the second time
    for minutes in range(0, 61, 5):
        asked = second + 60.0 * minutes
        following = Cron(line, LONDON).next_after(asked)
        assert following is not None
        assert following > asked


@pytest.mark.parametrize(
    ("line", "after", "expected"),
    [
        ("0 0 29 2 *", "2023-06-01T00:00", ["2024-02-29 00:00:00", "2028-02-29 00:00:00"]),
        ("0 0 29 2 *", "2096-03-01T00:00", ["2104-02-29 00:00:00"]),
        ("0 0 31 * *", "2024-01-31T00:00", ["2024-03-31 00:00:00", "2024-05-31 00:00:00"]),
        ("0 0 L 2 *", "2023-01-01T00:00", ["2023-02-28 00:00:00", "2024-02-29 00:00:00"]),
        ("0 9 * * 1-5", "2024-03-01T10:00", ["2024-03-04 09:00:00", "2024-03-05 09:00:00"]),
        ("0 9 * * sun", "2024-03-01T10:00", ["2024-03-03 09:00:00"]),
        ("0 9 * * 7", "2024-03-01T10:00", ["2024-03-03 09:00:00"]),
        ("@daily", "2024-03-01T00:00", ["2024-03-02 00:00:00"]),
        ("@Hourly", "2024-03-01T00:00", ["2024-03-01 01:00:00"]),
        ("@weekly", "2024-03-01T00:00", ["2024-03-03 00:00:00"]),
        ("@monthly", "2024-03-01T00:00", ["2024-04-01 00:00:00"]),
        ("@yearly", "2024-03-01T00:00", ["2025-01-01 00:00:00"]),
        # Six fields: the seconds stand in front.
        ("*/20 * * * * *", "2024-03-01T00:00", ["2024-03-01 00:00:20", "2024-03-01 00:00:40", "2024-03-01 00:01:00"]),
        ("30 0 9 * * *", "2024-03-01T00:00", ["2024-03-01 09:00:30", "2024-03-02 09:00:30"]),
        ("0 */5 * * * *", "2024-03-01T00:00", ["2024-03-01 00:05:00", "2024-03-01 00:10:00"]),
        ("  0   9 * * *  ", "2024-03-01T00:00", ["2024-03-01 09:00:00"]),
    ],
)
def test_days_names_and_seconds(line: str, after: str, expected: list[str]) -> None:
    found = Cron(line).after(at(after), count=len(expected))
    assert [f"{datetime.fromtimestamp(each, ZoneInfo('UTC')):%Y-%m-%d %H:%M:%S}" for each in found] == expected


@pytest.mark.parametrize("line", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 30 2 *"])
def test_a_line_that_never_fires_is_refused(line: str) -> None:
    assert Cron(line).next_after(time.time()) is None
    with pytest.raises(CronError, match=r"cron_expression: .* never fires"):
        check(line, "UTC", now=time.time())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * 2030", "has 7 fields"),
        ("60 * * * *", "is not a cron line"),
        ("* 24 * * *", "is not a cron line"),
        ("*/0 * * * *", "is not a cron line"),
        ("* * * foo *", "is not a cron line"),
        ("\x00 * * * *", "is not a cron line"),
        ("1-99999999999 * * * *", "is not a cron line"),
        ("H * * * *", "drawn at random"),
        ("R(1-5) * * * *", "drawn at random"),
        ("@reboot", "there are: @yearly"),
        ("*" * (MAX_LENGTH + 1), "over the limit"),
    ],
)
def test_what_is_no_cron_line_is_refused_with_the_reason(line: str, said: str) -> None:
    with pytest.raises(CronError, match=said) as caught:
        Cron(line)
    assert caught.value.field == "cron_expression"


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../UTC", "Europe", "/etc/passwd", "UTC\x00", "Europe/London "])
def test_an_unknown_zone_is_refused_by_its_field(zone: str) -> None:
    with pytest.raises(CronError, match="unknown time zone") as caught:
        Cron("@daily", zone)
    assert caught.value.field == "timezone"


def test_the_end_of_time_is_no_error() -> None:
    assert Cron("@yearly").next_after(253_300_000_000.0) is None
    assert Cron("@yearly").next_after(1e30) is None


@pytest.mark.parametrize("line", ["* * * * * *", "*/7 * * * *", "30 1 * * *", "0 12 29 2 *", "* * 1 1 *"])
def test_the_way_back_meets_the_times_of_the_way_forward(line: str) -> None:
    cron = Cron(line, LONDON)
    forward = cron.after(at("2023-10-28T22:00"), count=40)
    assert list(cron.back_from(forward[-1], first=forward[0])) == forward[::-1]
    assert list(cron.back_from(forward[-1] + 0.9, first=forward[0] + 0.5)) == forward[:0:-1]
    assert list(cron.back_from(forward[0] - 1.0, first=forward[0])) == []
