"""Schedules through the client: validated at the edge, shown in local time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.schedules import ScheduleClient
from aiqueue.engine.schedule_records import SchedulesCall, SchedulesReply
from aiqueue.errors import AIQueueError, QueueFull, ScheduleExists, ScheduleNotFound, ValidationError
from aiqueue.testing.jobs import chat
from tests.tools.asking import AskingTransport
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until

DAILY = "30 9 * * *"


@pytest.fixture
async def harness() -> AsyncIterator[ClientHarness]:
    async with ClientHarness() as made:
        yield made


@pytest.fixture
async def client(harness: ClientHarness) -> AsyncAIQueueAdapter:
    return await harness.client()


async def let_pass(harness: ClientHarness, seconds: float) -> None:
    harness.queue.clock.advance(seconds)
    harness.queue.service._ticker.tick()
    await turns()


async def test_a_new_schedule_shows_its_next_runs_in_its_own_time(client: AsyncAIQueueAdapter) -> None:
    info = await client.schedules.add(chat(), "report", DAILY, "high", timezone="America/New_York")
    assert (info.name, info.cron_expression, info.priority, info.enabled) == ("report", DAILY, "high", True)
    assert [f"{run:%H:%M %Z}" for run in info.next_runs] == ["09:30 EST"] * 5
    assert info.next_run == info.next_runs[0]
    assert str(info) == info.schedule_id
    found = await client.schedules.get("report")
    assert (found.payload, info.payload) == (chat(), None)
    assert msgspec.structs.replace(found, payload=None) == info


async def test_its_jobs_are_those_that_the_options_describe(
    harness: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    await harness.work()
    options = {"tags": ["nightly"], "metadata": {"team": "red"}, "max_retries": 7, "timeout": 5_000}
    added = await client.schedules.add(chat("Good morning"), "report", "* * * * *", 15, options=options)
    assert (added.tags, added.metadata, added.max_retries, added.timeout) == (("nightly",), {"team": "red"}, 7, 5_000)
    await let_pass(harness, 60.0)
    (run,) = await client.schedules.history("report")
    info = await client.wait(run.job_id or "")
    assert (info.status, info.priority) == ("completed", "urgent")
    stored = await client.get_job_status(info.job_id)
    assert stored is not None
    assert (stored.tags, stored.metadata) == (("nightly",), {"team": "red"})
    assert harness.provider.calls[0].body["messages"] == chat("Good morning")["messages"]
    (run,) = await client.schedules.history("report")
    assert (run.outcome, run.status) == ("fired", "completed")
    assert run.ended_at is not None


async def test_schedules_are_listed_paused_resumed_run_and_removed(
    harness: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    first = await client.schedules.add(chat(), "b", DAILY)
    await client.schedules.add(chat(), "a", "@hourly", enabled=False)
    assert [(info.name, info.enabled, len(info.next_runs)) for info in await client.schedules.find()] == [
        ("a", False, 0),
        ("b", True, 1),
    ]
    assert not (await client.schedules.pause(first)).enabled
    assert await client.schedules.next_runs(first) == []
    assert (await client.schedules.resume("b")).next_runs == first.next_runs
    runs = await client.schedules.next_runs(first.schedule_id, 12)
    assert {later - earlier for earlier, later in pairwise(runs)} == {timedelta(days=1)}
    assert len(runs) == 12
    job_id = await client.schedules.run_now("a")
    assert (await client.schedules.get("a")).running == [job_id]
    assert (await client.schedules.remove(first)).name == "b"
    assert [info.name for info in await client.schedules.find()] == ["a"]
    for call in (client.schedules.get, client.schedules.pause, client.schedules.history, client.schedules.run_now):
        with pytest.raises(ScheduleNotFound, match="Schedule not found: b"):
            await call("b")


async def test_a_program_may_add_its_schedules_each_time_it_starts(
    harness: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    first = await client.schedules.add(chat(), "report", DAILY)
    again = await (await harness.client()).schedules.add(chat(), "report", DAILY)
    assert again == first
    with pytest.raises(ScheduleExists, match="remove it first"):
        await client.schedules.add(chat("Other"), "report", DAILY)


async def test_a_lost_answer_is_no_second_schedule(harness: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    harness.transport.lose_answers("schedules")
    with pytest.raises(AIQueueError):
        await client.schedules.add(chat(), "report", DAILY)
    await client.schedules.add(chat(), "report", DAILY)
    assert len(await client.schedules.find()) == 1


@pytest.mark.parametrize("crash", [False, True])
async def test_a_removal_whose_answer_got_lost_is_answered_all_the_same(
    harness: ClientHarness, monkeypatch: pytest.MonkeyPatch, crash: bool
) -> None:
    client = await harness.client(AskingTransport(harness.transport))  # type: ignore[arg-type]
    added = await client.schedules.add(chat(), "report", DAILY)
    call_queue, removals = harness.transport.schedules, list[str]()

    async def lose_first_removal(call: SchedulesCall) -> SchedulesReply:
        if call.action == "remove":
            removals.append(call.schedule)
            if len(removals) == 1:
                harness.transport.lose_answers("schedules")
            elif crash:
                await harness.crash()
        return await call_queue(call)

    monkeypatch.setattr(harness.transport, "schedules", lose_first_removal)
    assert (await client.schedules.remove("report")).schedule_id == added.schedule_id
    assert removals == [added.schedule_id] * 2
    with pytest.raises(ScheduleNotFound, match="Schedule not found: report"):
        await client.schedules.remove("report")


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"cron_expression": "0 0 30 2 *"}, "cron_expression", "never fires"),
        ({"cron_expression": "every day"}, "cron_expression", "has 2 fields"),
        ({"cron_expression": 5}, "cron_expression", "string"),
        ({"timezone": "Mars/Olympus"}, "timezone", "unknown time zone"),
        ({"jitter": -1}, "jitter", "greater than or equal to 0"),
        ({"jitter": 1e12}, "jitter", "less than or equal to"),
        ({"overlap": "maybe"}, "overlap", "'skip', 'queue' or 'cancel_running'"),
        ({"catch_up": "some"}, "catch_up", "'none', 'last' or 'all'"),
        ({"overlap": "cancel_running", "catch_up": "all"}, "catch_up", "take last or none"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"priority": "asap"}, "priority", "Input should be"),
        ({"priority": "high", "options": {"priority": "low"}}, "priority", "give one of them"),
        ({"options": {"run_at": "2030-01-01T00:00:00Z"}}, "options.run_at", "None"),
        ({"options": {"idempotency_key": "k"}}, "options.idempotency_key", "None"),
        ({"options": {"tagz": []}}, "options.tagz", "not permitted"),
        ({"payload": {"type": "chat_completion"}}, "provider", "required"),
        ({"payload": chat(provider="nobody")}, "provider", "unknown provider"),
    ],
)
async def test_bad_input_is_refused_by_its_field_and_nothing_is_added(
    client: AsyncAIQueueAdapter, given: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        await client.schedules.add(**({"payload": chat(), "name": "n", "cron_expression": DAILY} | given))
    assert caught.value.errors[0].field == field
    assert said in str(caught.value)
    assert await client.schedules.find() == []


async def test_what_only_the_queue_can_refuse_is_the_same_error(
    harness: ClientHarness, client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiqueue.engine.schedules.MAX_SCHEDULES", 0)
    with pytest.raises(ValidationError, match="remove some") as caught:
        await client.schedules.add(chat(), "n", DAILY)
    assert caught.value.errors[0].field == "schedules"


async def test_a_full_queue_refuses_a_run_by_hand(client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    await client.schedules.add(chat(), "n", DAILY)
    monkeypatch.setattr("aiqueue.engine.schedules.MAX_WAITING", 1)
    await client.schedules.run_now("n")
    with pytest.raises(QueueFull):
        await client.schedules.run_now("n")


async def test_history_tells_what_was_missed_and_why(harness: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    await client.schedules.add(chat(), "n", "* * * * *", catch_up="none")
    await let_pass(harness, 3_605.0)
    fired, missed = await client.schedules.history("n")
    assert (fired.outcome, missed.outcome, missed.count) == ("fired", "missed", 59)
    assert missed.reason
    assert (await client.schedules.get("n")).last_run == fired
    assert await client.schedules.history("n", 1) == [fired]


async def test_schedules_survive_a_crash_of_the_queue(harness: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    await harness.work()
    info = await client.schedules.add(chat(), "n", "* * * * *")
    await let_pass(harness, 60.0)
    await until(lambda: len(harness.provider.calls) == 1)
    await harness.crash()
    harness.queue.clock.advance(60.0)
    harness.queue.service._ticker.tick()
    await turns()
    assert (await client.schedules.get(info)).fired == 1
    await let_pass(harness, 60.0)
    assert (await client.schedules.get(info)).fired == 2


def test_the_clients_have_the_same_methods() -> None:
    from aiqueue.client.schedules import SyncScheduleClient

    public = {name for name in vars(ScheduleClient) if not name.startswith("_")}
    assert public - {"put"} == {name for name in vars(SyncScheduleClient) if not name.startswith("_")}
