"""Schedules as the orchestrator offers them; what they do, `unit/engine/test_schedules` shows."""

from __future__ import annotations

from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import ScheduleNotFound, ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.testing.jobs import chat


async def test_a_scheduled_job_is_there_by_its_id_until_it_is_cancelled(
    client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    schedule_id = await orchestrator.schedule_job(
        chat(), "nightly", "0 3 * * *", timezone="Europe/London", priority="low"
    )
    (found,) = await client.schedules.find()
    assert (found.schedule_id, found.name, found.timezone) == (schedule_id, "nightly", "Europe/London")
    await orchestrator.cancel_schedule(schedule_id)
    with pytest.raises(ScheduleNotFound):
        await orchestrator.cancel_schedule(schedule_id)


async def test_a_schedule_may_be_given_as_one_dict_as_batches_and_chains_are(
    client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    given = {"name": "daily", "cronExpression": "0 9 * * *", "priority": "high", "enabled": True}
    first = await orchestrator.schedule_job(chat(), given, catch_up="none", idempotency_key="k")
    assert await orchestrator.schedule_job(chat(), given, catch_up="none", idempotency_key="k") == first
    found = await client.schedules.get(first)
    assert (found.name, found.cron_expression, found.priority, found.catch_up) == ("daily", "0 9 * * *", "high", "none")


@pytest.mark.parametrize(
    ("name", "line", "field"),
    [
        ({"name": "n"}, "", "cronExpression"),
        ({"name": "n", "cronExpression": "@daily", "cron": "x"}, "", "cron"),
        ("n", "", "cronExpression"),
        ("", "@daily", "name"),
        ({"name": "n", "cronExpression": "@daily"}, "@hourly", "cron"),
    ],
)
async def test_what_is_wrong_with_a_schedule_is_said_by_its_field(
    client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator, name: Any, line: str, field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        await orchestrator.schedule_job(chat(), name, line)
    assert field in caught.value.errors[0].field
    assert await client.schedules.find() == []
