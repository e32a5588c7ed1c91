"""Schedules as the orchestrator offers them; what they do, `unit/engine/test_schedules` shows."""

from __future__ import annotations

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import ScheduleNotFound
from aiqueue.orchestrator import AsyncAIJobOrchestrator
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
