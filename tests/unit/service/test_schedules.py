"""Schedules behind the queue's service: the timer, the disk, and calls that come twice."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from aiqueue.engine.schedule_records import Schedule, SchedulesCall, SchedulesReply, ScheduleView
from aiqueue.errors import DuplicateJob, JournalUnavailable, ScheduleNotFound, ValidationError
from aiqueue.service.schedules import MAX_NEXT, MAX_VIEWS, ScheduleDesk
from aiqueue.testing.jobs import completed
from tests.tools.schedules import SCHEDULE, spec
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


async def ask(queue: ServiceHarness, action: str, schedule: str = SCHEDULE, **fields: object) -> SchedulesReply:
    call = SchedulesCall(action, schedule)
    for name, value in fields.items():
        setattr(call, name, value)
    return await queue.service.schedules.answer(call)


async def add(queue: ServiceHarness, expression: str = "* * * * *", **fields: object) -> ScheduleView:
    (view,) = (await ask(queue, "add", spec=spec(expression, **fields))).schedules  # type: ignore[arg-type]
    return view


async def get(queue: ServiceHarness, schedule: str = SCHEDULE) -> ScheduleView:
    (view,) = (await ask(queue, "get", schedule)).schedules
    return view


async def let_pass(queue: ServiceHarness, seconds: float) -> None:
    """Let time pass, and the timer notice."""
    queue.clock.advance(seconds)
    queue.service._ticker.tick()
    await turns()


async def test_a_new_schedule_is_answered_with_its_next_ticks_and_without_its_payload(queue: ServiceHarness) -> None:
    view = await add(queue, "*/5 * * * *", payload=b"secret prompt")
    assert view.spec.payload == b""
    assert [at % 300 for at in view.next_ticks] == [0.0] * 5
    assert view.next_ticks == sorted(set(view.next_ticks))
    assert view.next_ticks[0] > queue.clock.now()


async def test_the_timer_fires_a_tick_and_a_worker_that_waits_is_given_its_job(queue: ServiceHarness) -> None:
    await add(queue)
    poll = await queue.park()
    await let_pass(queue, 60.0)
    (job,) = (await poll).claims
    assert job.payload == spec().payload
    await queue.exchange(completed(job.job_id), slots=0)
    (run,) = (await get(queue)).state.runs
    assert (run.outcome, run.job_id, run.status) == ("fired", job.job_id, "completed")


async def test_a_run_that_waits_starts_when_the_one_before_it_has_ended(queue: ServiceHarness) -> None:
    await add(queue, overlap="queue")
    for _ in range(2):
        await let_pass(queue, 60.0)
    (first,) = await queue.claim()
    poll = await queue.park(completed(first))
    await until(poll.done)  # no time passes: the timer is set for it
    (second,) = (await poll).claims
    assert [run.job_id for run in (await get(queue)).state.runs] == [first, second.job_id]


async def test_an_answer_means_that_it_is_on_disk(queue: ServiceHarness) -> None:
    queue.memory.hold()
    adding = asyncio.create_task(add(queue))
    await until(queue.memory.held.is_set)
    assert not adding.done()
    looking = asyncio.create_task(get(queue))
    await turns()
    assert not looking.done()
    queue.memory.release()
    assert (await adding).spec.id == (await looking).spec.id == SCHEDULE


async def test_a_journal_that_can_not_be_written_refuses_changes(queue: ServiceHarness) -> None:
    await add(queue)
    queue.memory.break_down()
    waiting = asyncio.create_task(queue.submit("job"))
    await until(lambda: queue.service._commits._error is not None)
    for action in ("add", "pause", "remove", "run"):
        with pytest.raises(JournalUnavailable):
            await ask(queue, action, spec=spec(number=1), job_id="job-2")
    queue.memory.mend()
    await waiting
    assert (await get(queue)).state.enabled


async def test_everything_is_there_after_a_crash(queue: ServiceHarness) -> None:
    await add(queue)
    await add(queue, "@daily", number=1)
    await ask(queue, "pause", "schedule 1")
    await let_pass(queue, 60.0)
    await queue.service._commits.settled()
    survivor = await queue.crashed()
    views = (await ask(survivor, "list", "")).schedules
    assert [(view.spec.name, view.state.enabled, view.state.fired) for view in views] == [
        ("schedule 0", True, 1),
        ("schedule 1", False, 0),
    ]
    survivor.clock.advance(60.0)
    survivor.service._ticker.tick()  # the same tick: this clock began anew
    assert (await get(survivor)).state.fired == 1
    await survivor.service.close()


async def test_calls_that_come_twice_happen_once(queue: ServiceHarness) -> None:
    for _ in range(2):
        assert (await add(queue)).spec.id == SCHEDULE
        assert (await ask(queue, "run", job_id="by-hand")).job_id == "by-hand"
        assert not (await ask(queue, "pause")).schedules[0].state.enabled
    assert (await get(queue)).state.fired == 1
    (job,) = (await queue.exchange()).claims
    await queue.exchange(completed(job.job_id), slots=0)
    assert (await ask(queue, "run", job_id="by-hand")).refusal is None
    assert queue.service.stats().adapter.total_jobs == 1


async def test_a_run_can_not_have_the_id_of_another_job(queue: ServiceHarness) -> None:
    await add(queue)
    await queue.submit("other")
    (job,) = (await queue.exchange()).claims
    await queue.exchange(completed(job.job_id), slots=0)
    refusal = (await ask(queue, "run", job_id="other")).refusal
    assert refusal is not None
    assert refusal.kind == DuplicateJob.kind


@pytest.mark.parametrize("action", ["get", "pause", "resume", "remove", "run"])
async def test_a_schedule_that_is_not_there_is_not_found(queue: ServiceHarness, action: str) -> None:
    refusal = (await ask(queue, action, "nobody", job_id="j")).refusal
    assert refusal is not None
    assert (refusal.kind, refusal.message) == (ScheduleNotFound.kind, "nobody")


@pytest.mark.parametrize("action", ["add", "run", "explode", ""])
async def test_a_call_that_lacks_something_is_refused(queue: ServiceHarness, action: str) -> None:
    refusal = (await ask(queue, action)).refusal
    assert refusal is not None
    assert refusal.kind == ValidationError.kind


async def test_a_view_is_a_copy(queue: ServiceHarness) -> None:
    await add(queue)
    await let_pass(queue, 60.0)
    before = await get(queue)
    await let_pass(queue, 60.0)
    assert [run.count for run in before.state.runs] == [1]


async def test_a_removed_schedule_is_answered_as_it_was_and_is_gone(queue: ServiceHarness) -> None:
    await add(queue)
    (gone,) = (await ask(queue, "remove", "schedule 0")).schedules
    assert gone.spec.id == SCHEDULE
    assert (await ask(queue, "list", "")).schedules == []


async def test_a_long_list_of_schedules_is_shown_some_at_a_time(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3 * MAX_VIEWS):
        await add(queue, number=number)
    shown: list[str] = []
    view = ScheduleDesk._view

    def counted(desk: ScheduleDesk, schedule: Schedule, next_ticks: int) -> ScheduleView:
        shown.append(schedule.spec.id)
        return view(desk, schedule, next_ticks)

    monkeypatch.setattr(ScheduleDesk, "_view", counted)
    listing = asyncio.create_task(queue.service.schedules.answer(SchedulesCall("list")))
    seen = [0]
    while not listing.done():
        await asyncio.sleep(0)
        seen.append(len(shown))
    assert max(after - before for before, after in pairwise(seen)) <= MAX_VIEWS
    assert len((await listing).schedules) == len(shown) == 3 * MAX_VIEWS


async def test_many_coming_ticks_of_a_rare_line_are_told_in_as_few_searches(queue: ServiceHarness) -> None:
    await add(queue, "0 0 * 2 sun#5", timezone="Europe/London")
    schedule = queue.service._engine.core.schedules.find(SCHEDULE)
    assert schedule is not None
    assert schedule.cron is not None
    before = schedule.cron.asked
    (view,) = (await ask(queue, "get", next_ticks=MAX_NEXT)).schedules
    assert len(view.next_ticks) == MAX_NEXT
    assert schedule.cron.asked - before <= 2 * MAX_NEXT
