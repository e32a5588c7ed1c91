"""The service's clock."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from aiqueue.engine import Tick
from aiqueue.protocol import ExchangeCall
from aiqueue.service.clock import SteadyClock
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import POOL, group, header, settings, submission
from aiqueue.testing.manual_clock import ManualClock
from aiqueue.testing.memory_journal import MemoryJournal


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


@pytest.mark.parametrize("jump_s", [3_600.0, -3_600.0, 86_400.0, -86_400.0])
async def test_setting_the_machines_clock_expires_no_lease_and_no_deadline(
    monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    service = QueueService(settings(), MemoryJournal())
    try:
        await service.submit(
            [group(submission("runs")), group(submission("waits", replace(header(), expires_in_ms=1_800_000)))]
        )
        await service.exchange(ExchangeCall("worker", POOL, 1))
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        _, committed = service._apply(Tick())
        await committed
        views = await service.get_jobs(["runs", "waits"])
        assert [view and view.status for view in views] == ["processing", "queued"]
    finally:
        await service.close()


def test_a_manual_clock_moves_only_when_it_is_told_to() -> None:
    clock = ManualClock(5.0)
    assert (clock.now(), clock.now(), clock.advance(0.0), clock.advance(2.0)) == (5.0, 5.0, 5.0, 7.0)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1.0)
