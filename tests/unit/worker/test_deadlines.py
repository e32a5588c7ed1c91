"""Deadlines: each job is ended at its own time, by one timer, and a cancel from elsewhere stays a cancel."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from aiqueue.worker.deadlines import DeadlinePassed, Deadlines
from tests.tools.turns import turns

_LONG, _SHORT = 60.0, 0.001


async def forever(deadlines: Deadlines, seconds: float, name: str = "a") -> None:
    with deadlines.within(seconds, name):
        await asyncio.get_running_loop().create_future()


async def deaf(deadlines: Deadlines, stopped: asyncio.Event, end: asyncio.Event) -> str:
    """Go on until ``end`` when it is told to stop."""
    with deadlines.within(_SHORT, "deaf"):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            stopped.set()
            await end.wait()
    return "ended by itself"


async def test_a_job_is_ended_at_its_time() -> None:
    with pytest.raises(DeadlinePassed):
        await forever(Deadlines(), _SHORT)


async def test_a_shorter_time_that_begins_later_ends_first_and_harms_no_other() -> None:
    deadlines = Deadlines()
    long = asyncio.create_task(forever(deadlines, _LONG, "long"))
    await turns(2)
    with pytest.raises(DeadlinePassed):
        await forever(deadlines, _SHORT, "short")
    assert not long.done()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long


async def test_times_that_pass_one_after_the_other_end_each_job() -> None:
    deadlines = Deadlines()
    times = [3 * _SHORT, _SHORT, 2 * _SHORT, _SHORT]
    ends = await asyncio.gather(*(forever(deadlines, seconds) for seconds in times), return_exceptions=True)
    assert [type(end) for end in ends] == [DeadlinePassed] * len(times)


async def test_what_ends_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    with deadlines.within(_SHORT, "a"):
        pass
    with pytest.raises(DeadlinePassed):
        await forever(deadlines, 2 * _SHORT, "b")  # the first one's timer has come and gone meanwhile


async def test_a_job_that_was_cancelled_is_no_timeout() -> None:
    task = asyncio.create_task(forever(Deadlines(), _LONG))
    await turns(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_that_is_cancelled_while_its_time_passes_is_cancelled() -> None:
    stopped = asyncio.Event()
    task = asyncio.create_task(deaf(Deadlines(), stopped, asyncio.Event()))
    await stopped.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_that_goes_on_after_its_time_is_told_of_until_it_ends() -> None:
    deadlines = Deadlines()
    stopped, end = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(deaf(deadlines, stopped, end))
    await stopped.wait()
    later = asyncio.get_running_loop().time() + 10.0
    late_s, name = deadlines.longest_overrun(now=later)
    assert (name, late_s >= 10.0 - _SHORT) == ("deaf", True)
    end.set()
    assert await task == "ended by itself"
    assert deadlines.longest_overrun(now=later) == (0.0, "")
    assert not task.cancelling()


async def test_the_error_of_a_job_whose_time_has_passed_is_kept() -> None:
    async def fails_when_stopped() -> None:
        with Deadlines().within(_SHORT, "a"):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise KeyError("its own") from None

    with pytest.raises(KeyError):
        await fails_when_stopped()


async def test_of_several_the_one_that_is_longest_over_its_time_is_named() -> None:
    deadlines = Deadlines()
    now = asyncio.get_running_loop().time()
    with deadlines.within(20.0, "later"), deadlines.within(10.0, "first"):
        late_s, name = deadlines.longest_overrun(now=now + 25.0)
    assert (name, 14.0 < late_s <= 15.0) == ("first", True)


def test_times_that_are_over_at_once_end_each_job_on_the_loop_of_actors() -> None:
    """A timer of uvloop's that is due at once is another object than one that is not."""

    async def run() -> list[object]:
        deadlines = Deadlines()
        times = [0.0, _SHORT, -1.0, 0.0]
        return list(await asyncio.gather(*(forever(deadlines, seconds) for seconds in times), return_exceptions=True))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ends = runner.run(run())
    assert [type(end) for end in ends] == [DeadlinePassed] * 4
