"""Schedules: one job per tick, by the rules for late ticks and for runs that have not ended."""

from __future__ import annotations

import dataclasses

import pytest

from aiqueue.engine import Tick, schedules
from aiqueue.engine.schedule_records import KEPT_RUNS
from aiqueue.engine.schedule_ticks import fire_at, tick_job_id
from aiqueue.engine.schedules import MAX_WAITING
from tests.tools.queue_harness import POLICY
from tests.tools.schedules import SCHEDULE, ScheduleHarness, spec


@pytest.fixture
def queue() -> ScheduleHarness:
    """Return a queue without schedules, at midnight."""
    return ScheduleHarness()


# --- ticks -----------------------------------------------------------------------------------------------------------


def test_each_tick_becomes_one_job_with_the_payload_and_the_options_of_the_schedule(queue: ScheduleHarness) -> None:
    queue.add()
    assert queue.engine.next_due(now=queue.clock.now()) == queue.clock.now() + 60.0
    queue.pass_minutes()
    queue.finish(queue.job_of("00:01"))
    queue.pass_minutes()
    assert queue.history() == [("00:01", "fired", "completed"), ("00:02", "fired", "")]
    job_id = queue.job_of("00:02")
    stored = queue.journal.jobs([job_id], with_payload=True)[job_id]
    assert stored.payload == spec().payload
    assert queue.job(job_id).owner == SCHEDULE
    assert queue.names(job_id) == ["submitted"]


def test_a_tick_does_not_fire_before_its_time(queue: ScheduleHarness) -> None:
    queue.add()
    queue.tick(59.9)
    assert queue.history() == []
    queue.tick(0.1)
    assert queue.fired() == ["00:01"]


def test_the_job_and_the_schedules_new_state_are_in_one_commit(queue: ScheduleHarness) -> None:
    queue.add()
    queue.clock.advance(60.0)
    effects = queue.do(Tick())
    assert len(effects.rows.jobs) == 1
    assert [row[0] for row in effects.rows.schedules] == [SCHEDULE]


def test_a_tick_whose_commit_was_lost_fires_again_as_the_same_job(queue: ScheduleHarness) -> None:
    queue.add()
    queue.clock.advance(60.0)
    lost = queue.engine.handle(Tick(), now=queue.clock.now())
    queue.restart()
    queue.tick()
    assert [job_id for _, job_id, _, _ in lost.rows.jobs] == [queue.job_of("00:01")]


def test_the_ids_of_jobs_follow_from_schedule_and_tick_and_are_all_different() -> None:
    made = {tick_job_id(spec(number=number).id, float(tick)) for number in range(10) for tick in range(100)}
    assert len(made) == 1_000
    assert {job_id[-2:] for job_id in made} == {f"{number:02x}" for number in range(10)}  # on the schedule's shard
    assert tick_job_id(SCHEDULE, 60.0) == tick_job_id(SCHEDULE, 60.0)


def test_several_schedules_fire_each_at_its_time(queue: ScheduleHarness) -> None:
    queue.add()
    other = queue.add("*/2 * * * *", number=1)
    queue.add("@yearly", number=2)
    for _ in range(4):
        queue.pass_minutes()
        queue.finish()
    assert queue.fired() == ["00:01", "00:02", "00:03", "00:04"]
    assert queue.fired(other) == ["00:02", "00:04"]


def test_a_daily_schedule_keeps_its_local_time_over_a_change_of_clocks(queue: ScheduleHarness) -> None:
    queue.set_clock("2023-10-28T12:00")
    queue.add("30 1 * * *", timezone="Europe/London")
    for _ in range(48 * 4):
        queue.tick(900.0)
        queue.finish()
    assert queue.fired() == ["00:30", "01:30"]  # in UTC: once on the day whose 01:30 comes twice


def test_the_machines_clock_counts_and_not_the_queues_own(queue: ScheduleHarness) -> None:
    queue.add()
    queue.tick_ahead(59.0)
    assert queue.history() == []
    assert queue.engine.next_due(now=queue.clock.now()) == queue.clock.now() + 1.0
    queue.tick_ahead(60.0)
    assert queue.fired() == ["00:01"]
    queue.tick_ahead(0.0)  # set back again
    queue.tick_ahead(60.0)
    assert queue.fired() == ["00:01"]


def test_jitter_starts_each_tick_later_by_its_own_share_but_before_the_next(queue: ScheduleHarness) -> None:
    queue.add(jitter_ms=3_600_000)
    shares = []
    for _ in range(20):
        due = queue.engine.next_due(now=queue.clock.now())
        assert due is not None
        shares.append(due % 60.0)
        queue.tick(due - queue.clock.now() - 0.001)
        before = len(queue.fired())
        queue.tick(0.001)
        assert len(queue.fired()) == before + 1
        queue.finish()
    assert queue.fired() == [f"00:{minute:02}" for minute in range(1, 21)]
    assert len({round(share, 3) for share in shares}) == 20
    before_restart = queue.schedule().state.fire_at
    queue.restart()
    assert queue.schedule().state.fire_at == before_restart


def test_a_tick_whose_share_of_the_jitter_is_still_to_come_waits_also_when_others_were_missed(
    queue: ScheduleHarness,
) -> None:
    queue.add(jitter_ms=60_000)
    due = queue.engine.next_due(now=queue.clock.now())
    assert due is not None
    queue.tick(due - queue.clock.now() + 60.0 * 9)  # some of the shares are longer, some shorter than the first one
    for _ in range(20):
        state = queue.schedule().state
        assert fire_at(queue.schedule(), state.runs[-1].tick) <= state.runs[-1].at
        assert state.fire_at > queue.clock.now()
        queue.finish()
        queue.tick(124.0)
    assert len(queue.fired()) >= 20


# --- ticks that passed while nobody was there ------------------------------------------------------------------------


def test_none_leaves_out_what_was_missed(queue: ScheduleHarness) -> None:
    queue.add("*/10 * * * *", catch_up="none")
    queue.restart()
    queue.tick(35 * 60.0)
    assert queue.history() == [("00:10", "missed", "")]
    assert queue.schedule().state.runs[0].count == 3
    queue.tick(5 * 60.0)
    assert queue.fired() == ["00:40"]


def test_none_forgives_a_minute(queue: ScheduleHarness) -> None:
    queue.add("*/10 * * * *", catch_up="none")
    queue.tick(10 * 60.0 + schedules.GRACE_S)
    assert queue.fired() == ["00:10"]


def test_last_runs_the_last_one_however_late(queue: ScheduleHarness) -> None:
    queue.add("*/10 * * * *", catch_up="last")
    queue.tick(35 * 60.0)
    assert queue.history() == [("00:10", "missed", ""), ("00:30", "fired", "")]
    assert queue.schedule().state.runs[0].count == 2


def test_all_runs_them_one_after_the_other_also_over_a_restart(queue: ScheduleHarness) -> None:
    queue.add("*/10 * * * *", catch_up="all")
    queue.tick(35 * 60.0)
    assert (queue.fired(), queue.schedule().state.waiting) == (["00:10"], [1_709_252_400.0, 1_709_253_000.0])
    queue.restart()
    queue.finish(queue.job_of("00:10"))
    assert queue.engine.next_due(now=queue.clock.now()) == 0.0  # at once
    queue.tick()
    queue.finish(queue.job_of("00:20"))
    queue.tick()
    assert queue.fired() == ["00:10", "00:20", "00:30"]


def test_all_is_capped_and_runs_the_latest(queue: ScheduleHarness) -> None:
    queue.add("* * * * *", catch_up="all")
    queue.tick(60.0 * (MAX_WAITING + 50))
    assert queue.history()[0] == ("00:01", "missed", "")
    for _ in range(MAX_WAITING + 10):
        queue.finish()
        queue.tick()
    state = queue.schedule().state
    assert (state.fired, state.waiting) == (MAX_WAITING, [])
    assert state.runs[-1].tick == queue.clock.now()


def test_a_year_of_missed_seconds_is_dealt_with_in_one_tick(queue: ScheduleHarness) -> None:
    queue.add("* * * * * *", catch_up="last")
    queue.tick(366 * 86_400.0)
    assert queue.schedule().state.fired == 1
    assert queue.schedule().state.next_tick == queue.clock.now() + 1.0


def test_a_clock_put_back_repeats_no_tick(queue: ScheduleHarness) -> None:
    queue.add()
    for _ in range(3):
        queue.pass_minutes()
        queue.finish()
    queue.set_clock("2024-03-01T00:01:30")
    queue.restart()
    for _ in range(3):
        queue.tick(45.0)
        queue.finish()
    assert queue.fired() == ["00:01", "00:02", "00:03"]
    queue.pass_minutes()
    assert queue.fired()[-1] == "00:04"


# --- runs that have not ended ----------------------------------------------------------------------------------------


def test_skip_leaves_out_ticks_while_a_run_goes_on_and_says_how_many(queue: ScheduleHarness) -> None:
    queue.add(overlap="skip")
    queue.pass_minutes(4)
    assert queue.history() == [("00:01", "fired", ""), ("00:02", "skipped", "")]
    assert queue.schedule().state.runs[-1].count == 3
    queue.finish()
    queue.pass_minutes()
    assert queue.fired() == ["00:01", "00:05"]


def test_queue_lets_ticks_wait_for_each_other(queue: ScheduleHarness) -> None:
    queue.add(overlap="queue")
    queue.pass_minutes(3)
    assert queue.fired() == ["00:01"]
    for expected in (["00:01", "00:02"], ["00:01", "00:02", "00:03"]):
        queue.finish()
        queue.tick()
        assert queue.fired() == expected


def test_queue_forgets_the_oldest_when_too_many_wait(queue: ScheduleHarness) -> None:
    queue.add(overlap="queue")
    queue.pass_minutes(MAX_WAITING + 4)
    state = queue.schedule().state
    assert len(state.waiting) == MAX_WAITING
    assert queue.history()[:2] == [("00:01", "fired", ""), ("00:02", "skipped", "")]
    assert state.runs[1].count == 3


def test_cancel_running_stops_the_run_and_starts_the_next(queue: ScheduleHarness) -> None:
    queue.add(overlap="cancel_running")
    queue.pass_minutes()
    waiting = queue.job_of("00:01")
    queue.pass_minutes()
    assert queue.history() == [("00:01", "fired", "cancelled"), ("00:02", "fired", "")]
    assert queue.state_of(waiting) == "cancelled"
    running = queue.job_of("00:02")
    assert queue.claim() == [running]
    queue.pass_minutes()
    assert queue.state_of(running) == "cancelling"
    assert queue.exchange(slots=1).cancels == [(running, 1)]
    assert queue.fired() == ["00:01", "00:02", "00:03"]


def test_a_run_in_progress_is_not_forgotten_however_many_ticks_are_skipped(queue: ScheduleHarness) -> None:
    queue.add("* * * * *", overlap="skip")
    queue.pass_minutes()
    job_id = queue.job_of("00:01")
    for number in range(2 * KEPT_RUNS):
        queue.run_now(f"by hand {number}")
        queue.cancel(f"by hand {number}")
    assert len(queue.schedule().state.runs) == KEPT_RUNS
    queue.restart()
    queue.pass_minutes()
    assert queue.fired() == ["00:01"]
    queue.finish(job_id)
    queue.pass_minutes()
    assert queue.fired() == ["00:03"]  # the first one has ended, and may be forgotten


def test_how_a_run_ended_is_in_the_commit_that_ended_it_and_after_a_restart(queue: ScheduleHarness) -> None:
    queue.add()
    queue.pass_minutes()
    queue.cancel(queue.job_of("00:01"))
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    assert queue.history() == [("00:01", "fired", "cancelled")]


def test_a_full_queue_lets_a_tick_wait_for_room(queue: ScheduleHarness) -> None:
    full = ScheduleHarness(dataclasses.replace(POLICY, max_depth=1))
    full.submit("in the way")
    full.add("*/10 * * * *")
    full.tick(600.0)
    assert full.history() == []
    full.finish("in the way")
    assert full.engine.next_due(now=full.clock.now()) == full.clock.now() + 5.0
    full.tick(5.0)
    assert full.fired() == ["00:10"]
