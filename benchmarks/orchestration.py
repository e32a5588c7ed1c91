"""Batches, chains and fan-in: accepting, running under a limit, asking how far they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.launch import System
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from benchmarks.harness import PAYLOAD, Figure, at, client, system, timed_ms

_ACCEPTED, _LIMITED, _CHAINS, _FANNED_IN = 100_000, 20_000, 1_000, 10_000
_AT_ONCE = 256  # as many as the worker has slots: what the limit itself costs, and not what it forbids
_STATUS_CALLS = 200


def run() -> Iterator[Figure]:
    """Yield the figures."""
    with system(workers=0) as running:
        took, status = asyncio.run(_accepted(running))
        yield Figure(name=f"batch of {_ACCEPTED:,} accepted", value=took, unit="s", floor="<= 5")
        yield Figure(name=f"status of a batch of {_ACCEPTED:,}, median", value=status, unit="ms", floor="<= 2")
    with system(workers=1) as running:
        free, limited = asyncio.run(_limited(running))
        yield Figure(name="batch without a limit", value=free, unit="jobs/s")
        yield Figure(name=f"batch, at most {_AT_ONCE} at once", value=limited, unit="jobs/s")
        yield Figure(name="cost of the limit", value=100 * (1 - limited / free), unit="%", floor="<= 5")
        steps = asyncio.run(_chained(running))
        yield Figure(name=f"{_CHAINS:,} chains of 3 steps", value=steps, unit="steps/s", floor=">= 1,000")
        took = asyncio.run(_fanned_in(running))
        yield Figure(name=f"fan-in of {_FANNED_IN:,} results", value=took, unit="s", floor="<= 3")


async def _accepted(running: System) -> tuple[float, float]:
    """Seconds to accept a batch from an iterator, and the median of how long its status takes, in ms."""
    async with client(running) as adapter, AsyncAIJobOrchestrator(adapter) as orchestrator:
        started = time.perf_counter()
        batch_id = await orchestrator.submit_batch_job(PAYLOAD for _ in range(_ACCEPTED))
        took = time.perf_counter() - started
        assert (await orchestrator.get_batch_job_status(batch_id)).total == _ACCEPTED
        calls = await timed_ms(lambda: orchestrator.get_batch_job_status(batch_id), _STATUS_CALLS)
        return took, at(calls, 0.5)


async def _limited(running: System) -> tuple[float, float]:
    """Jobs per second of a batch without and with a limit: the better of two runs each, in turns."""
    async with client(running) as adapter, AsyncAIJobOrchestrator(adapter) as orchestrator:
        await _rate(orchestrator)  # the worker's first jobs are slower
        free, limited = [], []
        for _ in range(3):
            free.append(await _rate(orchestrator))
            limited.append(await _rate(orchestrator, max_concurrency=_AT_ONCE))
        return max(free), max(limited)


async def _rate(orchestrator: AsyncAIJobOrchestrator, **options: Any) -> float:
    """Jobs per second over the life of a batch that waits for nothing."""
    batch_id = await orchestrator.submit_batch_job((PAYLOAD for _ in range(_LIMITED)), **options)
    info = await orchestrator.wait_batch(batch_id)
    assert info.completed == _LIMITED
    assert info.ended_at is not None
    return info.rate


async def _chained(running: System) -> float:
    """Steps per second of many short chains."""
    step = {**PAYLOAD, "messages": [{"role": "user", "content": "Go on from this: {{previous.content}}"}]}
    async with client(running) as adapter, AsyncAIJobOrchestrator(adapter) as orchestrator:
        started = time.perf_counter()
        chains = await asyncio.gather(*(orchestrator.create_job_chain([PAYLOAD, step, step]) for _ in range(_CHAINS)))
        infos = await adapter.wait_all([chain[-1] for chain in chains])
        took = time.perf_counter() - started
        assert {info.status for info in infos} == {"completed"}
        return 3 * _CHAINS / took


async def _fanned_in(running: System) -> float:
    """Seconds from the end of the last job to the aggregate of all."""
    async with client(running) as adapter, AsyncAIJobOrchestrator(adapter) as orchestrator:
        job_ids = await _ended_jobs(adapter, orchestrator)
        await orchestrator.fan_in(job_ids[:10], len)  # Ray starts a process for the first task
        started = time.perf_counter()
        total = await orchestrator.fan_in(job_ids, lambda results: sum(result.tokens for result in results))
        took = time.perf_counter() - started
        assert total > 0
        return took


async def _ended_jobs(adapter: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator) -> list[str]:
    batch_id, job_ids = await orchestrator.fan_out(PAYLOAD for _ in range(_FANNED_IN))
    assert (await orchestrator.wait_batch(batch_id)).completed == len(job_ids)
    await adapter.ping()
    return job_ids
