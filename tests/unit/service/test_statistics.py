"""Percentiles over recent jobs. What is counted, `test_clients` shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.config import DeadLetterConfig
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.protocol import Event
from aiqueue.service.statistics import RecentTimes, percentile
from aiqueue.testing.jobs import chat, settings
from tests.tools.client_harness import ClientHarness
from tests.tools.service_harness import ServiceHarness


def ended(name: str, *, level: int = 0) -> Event:
    return Event(1, name, 10.0, "a", "o", "completed", "t", "p", "m", level, 1, 4.0, 7.0, 1, since=4.0)


def test_only_completed_jobs_are_timed() -> None:
    recent = RecentTimes()
    recent.observe([ended("job:completed", level=2), ended("job:failed"), ended("job:submitted")])
    assert [list(times) for times in recent.latency_ms] == [[], [], [6_000.0], []]
    assert list(recent.processing_ms) == [3_000.0]


def test_only_the_last_jobs_count() -> None:
    recent = RecentTimes()
    recent.observe([ended("job:completed")] * 5_000)
    assert len(recent.latency_ms[0]) == 2_000


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == value


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_never_leaves_the_values(values: list[float], share: float) -> None:
    assert percentile(sorted(values), share) in values


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5) is None


async def test_the_dead_letters_are_called_as_the_settings_say() -> None:
    config = settings().model_copy(update={"dead_letter": DeadLetterConfig(queue_name="lost")})
    queue = ServiceHarness(config)
    assert queue.service.stats().adapter.dead_letter_queue == "lost"
    await queue.service.close()


async def test_schedules_are_counted_with_the_paused_ones_apart() -> None:
    async with ClientHarness() as system:
        orchestrator = AsyncAIJobOrchestrator(await system.client())
        for name in "ab":
            await orchestrator.schedule_job(chat(), name, "@daily", enabled=name == "a")
        await (await system.client()).schedules.run_now("b")
        stats = await orchestrator.get_stats()
        assert (stats.total_schedules, stats.active_schedules, stats.scheduled_runs) == (2, 1, 1)
        await system.crash()
        assert await orchestrator.get_stats() == stats


async def test_jobs_that_run_apart_after_a_crash_are_counted_in_the_lane_they_came_from() -> None:
    queue = ServiceHarness(settings())
    await queue.submit("a", "b", "c")
    await queue.exchange(slots=3)
    await queue.service.lose_worker("worker-1", "killed", crashed=True)
    await queue.submit("d")
    await queue.exchange(worker="worker-2", slots=3)
    found = queue.service.stats().adapter
    assert [(lane.model, lane.queued, lane.processing) for lane in found.lanes] == [("model-a", 3, 1)]
    assert (found.queued_jobs, found.processing_jobs) == (3, 1)
    await queue.service.close()
