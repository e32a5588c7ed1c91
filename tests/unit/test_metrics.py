"""What is measured for Prometheus: names, bounded labels, and values that agree with the statistics."""

from __future__ import annotations

import re

from aiqueue import metrics
from aiqueue.levels import LEVELS
from aiqueue.testing.jobs import completed, failed, retryable, settings
from aiqueue.views import Stats
from tests.tools.service_harness import ServiceHarness

POOLS = ("pool", "idle")


def values(stats: Stats) -> dict[tuple[str, ...], float]:
    """Each value by its metric's name and its labels' values."""
    return {
        (metric.name, *labels.values()): value
        for metric, value, labels in metrics.readings(stats, pools=POOLS, commit_waits_s=0.25)
    }


async def measured(*models: str) -> dict[tuple[str, ...], float]:
    """The values of a queue with one job of each level completed, one that runs, and one of each model that waits."""
    queue = ServiceHarness(settings())
    try:
        for level in LEVELS:
            await queue.submit(f"done-{level.value}", level=level)
        await queue.submit("runs")
        claimed = await queue.claim(len(LEVELS) + 1)
        queue.clock.advance(2.0)
        await queue.exchange(*(completed(job_id) for job_id in claimed if job_id != "runs"), slots=0)
        for model in models:
            await queue.submit(f"waits-{model}", model=model)
        queue.clock.advance(5.0)
        return values(await queue.service.counted_stats())
    finally:
        await queue.service.close()


def test_every_name_says_whose_it_is_and_has_a_help() -> None:
    for metric in (*metrics.GAUGES, metrics.ENDED):
        assert re.fullmatch(r"aiqueue_[a-z_]+", metric.name)
        assert metric.help.endswith(".")


async def test_values_are_those_of_the_statistics() -> None:
    found = await measured("m")
    assert found["aiqueue_queued_jobs", "medium"] == 1
    assert found["aiqueue_processing_jobs", "medium"] == 1
    assert found["aiqueue_pool_queued_jobs", "pool"] == 1
    assert found["aiqueue_oldest_waiting_seconds",] == 5.0
    assert found["aiqueue_latency_seconds", "urgent", "0.5"] == 2.0
    assert found["aiqueue_sla_compliance", "urgent"] == 1.0
    assert found["aiqueue_commit_wait_seconds",] == 0.25
    assert found["aiqueue_workers", "busy"] == 1


async def test_a_pool_without_work_is_told_as_such() -> None:
    assert (await measured())["aiqueue_pool_queued_jobs", "idle"] == 0


async def test_no_model_or_name_of_callers_makes_a_series() -> None:
    assert set(await measured("a")) == set(await measured(*(f"model-{number}" for number in range(50))))


async def test_dead_letters_are_those_that_are_there() -> None:
    queue = ServiceHarness(settings())
    try:
        await queue.submit("a", "b", max_retries=0)
        await queue.claim(2)
        await queue.exchange(*(failed(job_id, failure=retryable()) for job_id in ("a", "b")), slots=0)
        assert values(await queue.service.counted_stats())["aiqueue_dead_letters",] == 2
        await queue.service.dead_letters.delete(["a"])
        stats = await queue.service.counted_stats()
        assert values(stats)["aiqueue_dead_letters",] == 1
        assert metrics.ended(stats.adapter)["dead_letter"] == 2
    finally:
        await queue.service.close()
