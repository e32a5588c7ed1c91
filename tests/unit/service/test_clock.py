"""The service's clock."""

from __future__ import annotations

import time

import pytest

from aiqueue.service.clock import SteadyClock
from aiqueue.testing.manual_clock import ManualClock


def test_a_steady_clock_tells_the_time_of_day_and_never_goes_back() -> None:
    clock = SteadyClock()
    seen = [clock.now() for _ in range(1_000)]
    assert seen == sorted(seen)
    assert seen[0] == pytest.approx(time.time(), abs=60.0)


def test_a_steady_clock_tells_how_far_the_machines_clock_was_set_since() -> None:
    clock = SteadyClock()
    assert clock.ahead_s() == pytest.approx(0.0, abs=1.0)
    clock._offset -= 3_600.0  # as if the machine's clock had been put forward after the start
    assert clock.ahead_s() == pytest.approx(3_600.0, abs=1.0)


def test_a_manual_clock_moves_only_when_it_is_told_to() -> None:
    clock = ManualClock(5.0)
    assert (clock.now(), clock.now(), clock.advance(0.0), clock.advance(2.0)) == (5.0, 5.0, 5.0, 7.0)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1.0)
