"""What becomes of each kind of time when the machine's clock is set, when it sleeps, and when the queue restarts.

Each kind is one coroutine: what is before the step, ``yield``, what is after it. The table of docs/time.md in code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from aiqueue.engine import AddSchedule
from aiqueue.protocol import BatchSpec, Failure, SubmitGroup
from aiqueue.testing.jobs import completed, failed, group, header, submission
from tests.tools.clock_rig import REBOOTED, SET, SET_WHILE_DOWN, SLEPT, ClockRig
from tests.tools.schedules import spec

MINUTE_S, HOUR_S, DAY_S, YEAR_S = 60.0, 3_600.0, 86_400.0, 365 * 86_400.0
AMOUNTS = [HOUR_S, -HOUR_S, DAY_S, -DAY_S, YEAR_S, -YEAR_S]
STEPS = [
    *((how, by_s) for how in (SET, SET_WHILE_DOWN) for by_s in AMOUNTS),
    *((REBOOTED, by_s) for by_s in AMOUNTS if by_s < 0),  # put forward, the queue can't know that it was not away
]

Kind = Callable[[ClockRig], AsyncIterator[None]]


async def a_lease(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=header())
    await rig.work()
    yield
    await rig.run(80.0)
    assert await rig.status("a") == "processing"
    await rig.run(11.0)
    assert await rig.status("a") == "queued"


async def a_backoff(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=header())
    await rig.work()
    await rig.work(failed("a"), slots=0)
    yield
    assert await rig.status("a") == "scheduled"
    await rig.run(1.0)
    assert await rig.status("a") == "queued"


async def a_closed_gate(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=header())
    await rig.work()
    await rig.work(failed("a", failure=Failure("rate_limited", "Provider sim: 429", True, 429, 20.0)), slots=0)
    yield
    await rig.run(19.0)
    assert rig.ready() == 0
    await rig.run(1.0)
    assert rig.ready() == 1


async def a_delay(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=replace(header(), delay_ms=1_800_000))
    yield
    await rig.run(1_799.0)
    assert await rig.status("a") == "scheduled"
    await rig.run(1.0)
    assert await rig.status("a") == "queued"


async def an_expiry(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=replace(header(), expires_in_ms=1_800_000))
    yield
    await rig.run(1_799.0)
    assert await rig.status("a") == "queued"
    await rig.run(1.0)
    assert await rig.status("a") == "expired"


async def an_age_in_the_queue(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=header())
    yield
    await rig.run(10.0)
    assert rig.service.stats().adapter.oldest_waiting_s == pytest.approx(10.0, abs=0.01)


async def a_job_that_has_ended(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=header())
    await rig.work()
    await rig.work(completed("a"), slots=0)
    yield
    await rig.run(DAY_S - 10.0)
    await rig.forget()
    assert await rig.status("a") == "completed"
    await rig.run(MINUTE_S)
    await rig.forget()
    assert await rig.status("a") == ""


async def a_key(rig: ClockRig) -> AsyncIterator[None]:
    keyed = replace(header(), idempotency_key="scope:key")
    await rig.submit("a", job=keyed)
    await rig.work()
    await rig.work(completed("a"), slots=0)
    yield
    await rig.run(DAY_S - 10.0)
    await rig.forget()
    assert await rig.send(group(submission("b", replace(keyed)))) == "a"
    await rig.run(MINUTE_S)
    await rig.forget()
    assert await rig.send(group(submission("b", replace(keyed)))) == ""


async def an_open_batch(rig: ClockRig) -> AsyncIterator[None]:
    part = [submission("a", header(batch_id="nightly"))]
    await rig.send(SubmitGroup(part, batch=BatchSpec("nightly", is_open=True)))
    yield
    await rig.run(599.0)
    assert await rig.status("a") == "blocked"
    await rig.run(1.0)
    await rig.tick()
    assert await rig.status("a") == ""


async def times_that_are_shown(rig: ClockRig) -> AsyncIterator[None]:
    await rig.submit("a", job=header())
    await rig.run(5.0)
    await rig.work()
    await rig.run(2.0)
    await rig.work(completed("a"), slots=0)
    yield
    await rig.run(3.0)
    view = await rig.view("a")
    assert view is not None
    now = rig.machine.wall()
    shown = [view.header.created_at, view.started_at, view.finished_at]
    assert shown == pytest.approx([now - 10.0, now - 5.0, now - 3.0], abs=0.01)
    assert await rig.view("a") == view


STEADY = [
    a_lease,
    a_backoff,
    a_closed_gate,
    a_delay,
    an_expiry,
    an_age_in_the_queue,
    a_job_that_has_ended,
    a_key,
    an_open_batch,
    times_that_are_shown,
]


async def lives_through(kind: Kind, how: str, by_s: float) -> None:
    rig = ClockRig()
    try:
        steps = kind(rig)
        await anext(steps)
        await rig.step(how, by_s)
        with pytest.raises(StopAsyncIteration):
            await anext(steps)
    finally:
        await rig.close()


@pytest.mark.parametrize(("how", "by_s"), STEPS)
@pytest.mark.parametrize("kind", STEADY)
async def test_a_step_of_the_machines_clock_moves_nothing_that_is_counted(kind: Kind, how: str, by_s: float) -> None:
    await lives_through(kind, how, by_s)


# --- dates: what the machine's clock shows is what counts ------------------------------------------------------------


@pytest.mark.parametrize("how", [SET, SET_WHILE_DOWN, REBOOTED])
@pytest.mark.parametrize("by_s", AMOUNTS)
async def test_a_job_runs_at_its_date_by_the_machines_clock(how: str, by_s: float) -> None:
    rig = ClockRig()
    try:
        at = rig.machine.wall() + 1_800.0
        await rig.submit("a", job=replace(header(), run_at=at))
        assert await rig.status("a") == "scheduled"
        await rig.step(how, by_s)
        if by_s < 0:
            view = await rig.view("a")
            assert view is not None
            assert (view.status, view.run_at) == ("scheduled", at)
            await rig.run(1_799.0 - by_s)
            assert await rig.status("a") == "scheduled"
            await rig.run(1.0)
        assert await rig.status("a") == "queued"
    finally:
        await rig.close()


@pytest.mark.parametrize("how", [SET, SET_WHILE_DOWN, REBOOTED])
@pytest.mark.parametrize("by_s", AMOUNTS)
async def test_a_job_expires_at_its_deadline_by_the_machines_clock(how: str, by_s: float) -> None:
    rig = ClockRig()
    try:
        await rig.submit("a", job=replace(header(), expires_at=rig.machine.wall() + 1_800.0))
        await rig.step(how, by_s)
        if by_s < 0:
            await rig.run(1_799.0 - by_s)
            assert await rig.status("a") == "queued"
            await rig.run(1.0)
        assert await rig.status("a") == "expired"
    finally:
        await rig.close()


@pytest.mark.parametrize("how", [SET, SET_WHILE_DOWN])
@pytest.mark.parametrize("by_s", AMOUNTS)
async def test_dates_that_are_said_after_a_step_are_those_of_the_machines_clock(how: str, by_s: float) -> None:
    rig = ClockRig()
    try:
        await rig.step(how, by_s)
        now = rig.machine.wall()
        await rig.submit("soon", job=replace(header(), run_at=now + 60.0))
        await rig.submit("past", job=replace(header(), run_at=now - 60.0))
        await rig.submit("late", job=replace(header(), expires_at=now - 60.0))
        await rig.submit("both", job=replace(header(), run_at=now + 60.0, delay_ms=120_000))
        await rig.tick()
        assert [await rig.status(job_id) for job_id in ("soon", "past", "late")] == ["scheduled", "queued", "expired"]
        await rig.run(60.0)
        assert [await rig.status(job_id) for job_id in ("soon", "both")] == ["queued", "scheduled"]
        await rig.run(60.0)
        assert await rig.status("both") == "queued"
    finally:
        await rig.close()


@pytest.mark.parametrize("how", [SET, SET_WHILE_DOWN, SLEPT])
async def test_a_schedule_fires_when_the_machines_clock_says_so(how: str) -> None:
    rig = ClockRig()
    try:
        _, committed = rig.service._apply(AddSchedule(spec("0 * * * *")))  # each full hour
        await committed
        await rig.step(how, HOUR_S)
        (schedule,) = rig.service._engine.core.schedules
        assert len(schedule.state.runs) == 1
    finally:
        await rig.close()


# --- suspends: an hour of sleep is an hour, and a worker can't be heard in it ----------------------------------------


@pytest.mark.parametrize("hours", [1, 8, 24 * 365])
async def test_a_suspend_counts_as_time_for_all_but_leases_and_open_batches(hours: int) -> None:
    rig = ClockRig()
    try:
        now = rig.machine.wall()
        await rig.submit("held", job=header())
        await rig.work()
        await rig.submit("delayed", job=replace(header(), delay_ms=60_000))
        await rig.submit("dated", job=replace(header(), run_at=now + 60.0))
        await rig.submit("expires", job=replace(header(), expires_in_ms=1_800_000))
        await rig.submit("deadline", job=replace(header(), expires_at=now + 1_800.0))
        part = [submission("part", header(batch_id="nightly"))]
        await rig.send(SubmitGroup(part, batch=BatchSpec("nightly", is_open=True)))
        await rig.step(SLEPT, hours * HOUR_S)
        found = {each: await rig.status(each) for each in ("held", "delayed", "dated", "expires", "deadline", "part")}
        assert found == {
            "held": "processing",
            "delayed": "queued",
            "dated": "queued",
            "expires": "expired",
            "deadline": "expired",
            "part": "blocked",
        }
    finally:
        await rig.close()


@pytest.mark.parametrize("off_s", [HOUR_S, DAY_S])
async def test_the_time_a_machine_was_off_counts(off_s: float) -> None:
    rig = ClockRig()
    try:
        await rig.submit("delayed", job=replace(header(), delay_ms=60_000))
        await rig.submit("expires", job=replace(header(), expires_in_ms=1_800_000))
        await rig.step(REBOOTED, off_s)
        assert [await rig.status(each) for each in ("delayed", "expires")] == ["queued", "expired"]
    finally:
        await rig.close()


async def test_a_queue_that_ran_under_a_clock_a_year_ahead_forgets_its_jobs_once_it_is_right() -> None:
    rig = ClockRig()
    try:
        rig.machine.set_by(YEAR_S)
        await rig.step(REBOOTED, 0.0)
        await rig.submit("ahead", job=header())
        await rig.work()
        await rig.work(completed("ahead"), slots=0)
        await rig.step(SET_WHILE_DOWN, -YEAR_S)
        await rig.submit("after", job=header())
        await rig.work()
        await rig.work(completed("after"), slots=0)
        await rig.forget()
        await rig.run(DAY_S + 1.0)
        await rig.forget()
        assert [await rig.status(each) for each in ("ahead", "after")] == ["", ""]
    finally:
        await rig.close()
