"""Schedules that are paused, run by hand, removed, refused."""

from __future__ import annotations

import msgspec
import pytest

from aiqueue.engine import schedules
from aiqueue.engine.schedules import MAX_SCHEDULES, MAX_WAITING
from aiqueue.errors import DuplicateJob, QueueFull, ScheduleExists, ScheduleNotFound, ValidationError
from aiqueue.protocol import Refusal
from tests.tools.schedules import SCHEDULE, ScheduleHarness, spec


@pytest.fixture
def queue() -> ScheduleHarness:
    """Return a queue without schedules, at midnight."""
    return ScheduleHarness()


def refused(reply: Refusal | str) -> tuple[str, str]:
    assert isinstance(reply, Refusal)
    return reply.kind, reply.message


# --- pausing, running by hand, removing ------------------------------------------------------------------------------


def test_a_paused_schedule_starts_nothing_and_makes_up_for_nothing(queue: ScheduleHarness) -> None:
    queue.add(catch_up="all")
    queue.pass_minutes()
    queue.finish()
    assert queue.change("pause") == SCHEDULE
    assert queue.engine.next_due(now=queue.clock.now()) is None
    queue.pass_minutes(5)
    queue.restart()
    assert queue.change("resume", "schedule 0") == SCHEDULE
    queue.tick()
    assert queue.fired() == ["00:01"]
    queue.pass_minutes()
    assert queue.fired() == ["00:01", "00:07"]


def test_resuming_what_is_not_paused_leaves_no_tick_out(queue: ScheduleHarness) -> None:
    queue.add()
    queue.clock.advance(60.0)
    queue.change("resume")
    queue.tick()
    assert queue.fired() == ["00:01"]


def test_resuming_after_the_clock_was_put_back_repeats_no_tick(queue: ScheduleHarness) -> None:
    queue.add()
    queue.pass_minutes(1)
    queue.finish()
    queue.set_clock("2024-03-01T00:00:30")
    queue.change("pause")
    queue.change("resume")
    queue.tick(30.0)
    assert queue.fired() == ["00:01"]
    queue.pass_minutes()
    assert queue.fired() == ["00:01", "00:02"]


def test_a_schedule_added_as_paused_waits_to_be_resumed(queue: ScheduleHarness) -> None:
    queue.add(enabled=False)
    queue.pass_minutes(2)
    assert queue.history() == []
    queue.change("resume")
    queue.pass_minutes()
    assert queue.fired() == ["00:03"]


def test_running_by_hand_is_beside_the_line_once_per_id_and_counts_as_a_run(queue: ScheduleHarness) -> None:
    queue.add(enabled=False)
    assert queue.run_now("by hand") == queue.run_now("by hand") == SCHEDULE
    assert queue.history() == [("00:00", "manual", "")]
    queue.change("resume")
    queue.pass_minutes()
    assert queue.history()[1:] == [("00:01", "skipped", "")]
    queue.submit("taken")
    assert refused(queue.run_now("taken"))[0] == DuplicateJob.kind


def test_too_many_runs_by_hand_are_refused(queue: ScheduleHarness) -> None:
    queue.add()
    for number in range(MAX_WAITING):
        assert queue.run_now(f"by hand {number}") == SCHEDULE
    assert refused(queue.run_now("one more"))[0] == QueueFull.kind


def test_a_removed_schedule_is_gone_and_its_job_goes_on(queue: ScheduleHarness) -> None:
    queue.add()
    queue.pass_minutes()
    job_id = queue.job_of("00:01")
    assert queue.change("remove") == SCHEDULE
    queue.restart()
    queue.pass_minutes(2)
    queue.finish(job_id)
    assert queue.state_of(job_id) == "completed"
    assert len(queue.engine.core.schedules) == 0
    assert queue.add() == SCHEDULE  # its name is free again


@pytest.mark.parametrize("action", ["pause", "resume", "remove"])
def test_a_schedule_that_is_not_there_is_not_found(queue: ScheduleHarness, action: str) -> None:
    assert refused(queue.change(action, "nobody")) == (ScheduleNotFound.kind, "nobody")
    assert refused(queue.run_now("job", "nobody")) == (ScheduleNotFound.kind, "nobody")


# --- what is refused -------------------------------------------------------------------------------------------------


def test_the_same_schedule_again_is_the_one_that_is_there(queue: ScheduleHarness) -> None:
    queue.add()
    again = spec(number=0)
    again.id, again.header.owner, again.enabled = SCHEDULE[:-2] + "99", "another client", False
    assert queue.try_to_add(again) == SCHEDULE
    queue.pass_minutes()
    assert queue.fired() == ["00:01"]


@pytest.mark.parametrize(
    "fields", [{"expression": "@daily"}, {"payload": b"other"}, {"timezone": "Asia/Tokyo"}, {"jitter_ms": 5}]
)
def test_another_schedule_of_the_same_name_is_refused(queue: ScheduleHarness, fields: dict[str, object]) -> None:
    queue.add()
    other = msgspec.structs.replace(spec(), id=SCHEDULE[:-2] + "99", **fields)
    assert refused(queue.try_to_add(other)) == (ScheduleExists.kind, "schedule 0")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"expression": "0 0 30 2 *"}, "cron_expression"),
        ({"expression": "nonsense"}, "cron_expression"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"jitter_ms": -1}, "overlap, catch_up or jitter"),
        ({"overlap": "sometimes"}, "overlap, catch_up or jitter"),
        ({"catch_up": "sometimes"}, "overlap, catch_up or jitter"),
        ({"catch_up": "all", "overlap": "cancel_running"}, "catch_up"),
        ({"payload": b"x" * (schedules.MAX_PAYLOAD_BYTES + 1)}, "payload"),
    ],
)
def test_what_can_not_be_kept_is_refused_by_its_field(
    queue: ScheduleHarness, fields: dict[str, object], field: str
) -> None:
    kind, message = refused(queue.try_to_add(msgspec.structs.replace(spec(), **fields)))
    assert (kind, message.partition(": ")[0]) == (ValidationError.kind, field)
    assert len(queue.engine.core.schedules) == 0


def test_there_are_only_so_many_schedules(queue: ScheduleHarness) -> None:
    for number in range(MAX_SCHEDULES):
        wanted = msgspec.structs.replace(spec("@yearly"), id=f"schedule-{number:036}", name=f"name {number}")
        assert queue.try_to_add(wanted) == wanted.id
    assert refused(queue.try_to_add(spec()))[0] == ValidationError.kind


def test_a_zone_that_this_machine_does_not_know_pauses_its_schedule_and_nothing_else(queue: ScheduleHarness) -> None:
    queue.add()
    other = queue.add("*/2 * * * *", number=1)
    (row,) = [row for row in queue.journal._disk.schedules.items() if row[0] == SCHEDULE]
    definition, state = row[1]
    broken = schedules.encode_spec(msgspec.structs.replace(schedules.decode_spec(definition), timezone="Mars/Olympus"))
    queue.journal._disk.schedules[SCHEDULE] = (broken, state)
    queue.restart()
    queue.pass_minutes(2)
    assert (queue.schedule().state.enabled, queue.history()) == (False, [])
    assert "Mars/Olympus" in queue.schedule().state.problem
    assert queue.fired(other) == ["00:02"]
    assert "Mars/Olympus" in refused(queue.change("resume"))[1]
