"""Batches that run: their limits, a cancel, a pause, and retries of what failed."""

from __future__ import annotations

import pytest

from aiqueue.errors import ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until
from tests.unit.orchestrator.test_batches import fail_rows, rows


async def test_no_more_than_max_concurrency_run_at_once(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work(slots=50)
    system.provider.hold()
    batch_id = await orchestrator.submit_batch_job(rows(200), max_concurrency=7)
    await until(lambda: system.provider.running == 7)
    await turns(50)
    system.provider.release()
    assert (await orchestrator.wait_batch(batch_id)).completed == 200
    assert system.provider.most_at_once == 7


async def test_fail_fast_stops_the_others_and_says_why(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    system.provider.behave = fail_rows(5)
    await system.work(slots=2)
    batch_id = await orchestrator.submit_batch_job(rows(3_000), fail_fast=True)
    info = await orchestrator.wait_batch(batch_id)
    assert info.status == "failed"
    assert info.reason == "a job failed, and fail_fast is set"
    assert info.failed == 1
    assert info.completed + info.cancelled == 2_999
    assert info.cancelled > 2_900


async def test_too_great_a_share_of_failures_stops_the_batch(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    system.provider.behave = fail_rows(*range(6))
    await system.work(slots=1)
    info = await orchestrator.wait_batch(await orchestrator.submit_batch_job(rows(20), max_failed_ratio=0.2))
    assert (info.status, info.failed, info.completed) == ("failed", 5, 0)
    assert info.reason == "5 of 20 jobs failed, more than max_failed_ratio allows"


async def test_a_cancel_stops_running_jobs_too_and_keeps_what_is_done(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    batch_id = await orchestrator.submit_batch_job(rows(2_500))
    await system.work(slots=3)
    await until(lambda: len(system.provider.calls) > 6)
    system.provider.hold()
    await until(lambda: system.provider.running == 3)
    await orchestrator.cancel_batch_job(batch_id)
    info = await orchestrator.wait_batch(batch_id)
    assert info.status == "cancelled"
    assert info.completed > 0
    assert info.completed + info.cancelled == 2_500
    assert len(system.provider.stopped) == 3


async def test_a_paused_batch_starts_nothing_until_it_is_resumed(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    batch_id = await orchestrator.submit_batch_job(rows(30))
    assert (await orchestrator.pause_batch_job(batch_id)).status == "paused"
    await system.work()
    await turns(30)
    assert not system.provider.calls
    await orchestrator.resume_batch_job(batch_id)
    assert (await orchestrator.wait_batch(batch_id)).completed == 30


async def test_failed_jobs_are_retried_in_their_places(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    system.provider.behave = fail_rows(1, 4)
    await system.work()
    batch_id = await orchestrator.submit_batch_job(rows(6))
    assert (await orchestrator.wait_batch(batch_id)).failed == 2
    system.provider.behave = fail_rows(4)
    assert (await orchestrator.retry_failed(batch_id)).retried == 2
    info = await orchestrator.wait_batch(batch_id)
    assert (info.total, info.completed, info.failed) == (6, 5, 1)
    found = [each async for each in orchestrator.iter_results(batch_id)]
    assert [(each.index, each.job.status) for each in found] == [
        (index, "failed" if index == 4 else "completed") for index in range(6)
    ]
    system.provider.behave = lambda request: None
    await system.crash()
    assert (await orchestrator.retry_failed(batch_id)).retried == 1
    assert (await orchestrator.wait_batch(batch_id)).completed == 6
    assert (await orchestrator.retry_failed(batch_id)).retried == 0
    assert len(system.provider.calls) == 9


async def test_the_key_of_a_retry_is_of_its_batch_and_its_caller(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    system.provider.behave = fail_rows(0)
    await system.work()
    for batch_id in ("a", "a b"):
        await orchestrator._adapter.submit_jobs(rows(1), batch_id=batch_id)
        assert (await orchestrator.wait_batch(batch_id)).failed == 1
    for batch_id, key, scope in (("a b", "c", "x"), ("a", "b c", "x"), ("a", "b c", "y"), ("a", "x:b c", "y")):
        retry = await orchestrator.retry_failed(batch_id, idempotency_key=key, scope=scope)
        assert (retry.retried, (await orchestrator.wait_batch(batch_id)).failed) == (1, 1)
        again = await orchestrator.retry_failed(batch_id, idempotency_key=key, scope=scope)
        assert (again.retried, again.status) == (1, "failed")
    assert len(system.provider.calls) == 6
    for bad in ("k" * 256, "a\nb", "\ud83d"):
        with pytest.raises(ValidationError, match="idempotency_key"):
            await orchestrator.retry_failed("a", idempotency_key=bad)
