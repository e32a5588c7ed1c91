"""The service's clock."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.engine.counters import ClockMark
from aiqueue.service.clock import SteadyClock
from aiqueue.testing.manual_clock import START, ManualClock, ManualMachine


def test_a_steady_clock_tells_the_time_of_day_and_never_goes_back() -> None:
    clock = SteadyClock()
    seen = [clock.now() for _ in range(1_000)]
    assert seen == sorted(seen)
    assert seen[0] == pytest.approx(time.time(), abs=60.0)


def test_a_steady_clock_tells_how_far_the_machines_clock_was_set_since() -> None:
    machine = ManualMachine()
    clock = SteadyClock(machine.wall, machine.counted, machine.boot)
    machine.run(5.0)
    assert (clock.now(), clock.ahead_s()) == (START + 5.0, 0.0)
    machine.set_by(3_600.0)
    assert (clock.now(), clock.ahead_s()) == (START + 5.0, 3_600.0)


def after_a_start(machine: ManualMachine, last: ClockMark) -> tuple[SteadyClock, ClockMark]:
    clock = SteadyClock(machine.wall, machine.counted, machine.boot)
    return clock, clock.resume(last)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["run", "suspend", "set_by", "reboot"]), st.floats(0.0, 4e7)),
            st.tuples(st.just("set_by"), st.floats(-4e7, 0.0)),
        ),
        max_size=12,
    )
)
def test_over_any_restarts_a_clock_never_goes_back_and_in_one_boot_counts_what_passed(
    steps: list[tuple[str, float]],
) -> None:
    machine = ManualMachine()
    clock, mark = after_a_start(machine, ClockMark())
    mark.now = clock.now()  # as a commit notes it
    for what, by_s in steps:
        before, counted, boot = clock.now(), machine.counted(), machine.boot()
        getattr(machine, what)(by_s)
        clock, mark = after_a_start(machine, mark)
        assert clock.now() >= before
        if machine.boot() == boot:
            assert clock.now() - before == pytest.approx(machine.counted() - counted, abs=1e-3)
        assert clock.ahead_s() == pytest.approx(mark.ahead_s, abs=0.5)
        mark.now = clock.now()


def test_a_start_without_a_boots_name_goes_by_the_time_of_day() -> None:
    machine = ManualMachine()
    clock = SteadyClock(machine.wall, machine.counted, lambda: "")
    last = clock.resume(ClockMark())
    last.now = clock.now()
    machine.run(60.0)
    machine.set_by(-10.0)
    again = SteadyClock(machine.wall, machine.counted, lambda: "")
    again.resume(last)
    assert again.now() == last.now + 50.0


def test_a_manual_clock_moves_only_when_it_is_told_to() -> None:
    clock = ManualClock(5.0)
    assert (clock.now(), clock.now(), clock.advance(0.0), clock.advance(2.0)) == (5.0, 5.0, 5.0, 7.0)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1.0)
