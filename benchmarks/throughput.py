"""Bulk submit with no worker, then the same backlog drained by one worker process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray

from actors.worker_actor import WorkerActor
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.launch import System
from benchmarks.harness import PAYLOAD, POOL, Figure, client, system

_SUBMITTED, _DRAINED = 100_000, 20_000
_LIST = 1_000  # jobs a caller hands over at once
_CALLERS = 4


def run() -> Iterator[Figure]:
    """Yield the figures."""
    with system(workers=0) as running:
        rate = asyncio.run(_submitted(running))
        yield Figure(name="bulk submit", value=rate, unit="jobs/s", floor="60,000", peer="37,149")
    with system(workers=0) as running:
        rate = asyncio.run(drained(running, PAYLOAD, _DRAINED))
        yield Figure(name="backlog drained", value=rate, unit="jobs/s", floor="12,000, then 15,000", peer="7,217")


async def _submitted(running: System) -> float:
    """Jobs accepted per second."""
    async with client(running) as adapter:
        started = time.perf_counter()
        await _submit(adapter, _SUBMITTED)
        return _SUBMITTED / (time.perf_counter() - started)


async def _submit(adapter: AsyncAIQueueAdapter, count: int, payload: Mapping[str, Any] = PAYLOAD) -> list[str]:
    """Submit by several callers of one process that hand over lists."""
    lists = iter(range(count // _LIST))
    ids: list[str] = []

    async def caller() -> None:
        for _ in lists:
            ids.extend(await adapter.submit_jobs([payload] * _LIST))

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    return ids


async def drained(running: System, payload: Mapping[str, Any], count: int) -> float:
    """Jobs per second of a backlog, from a new worker's first claim to the last result in the submitter's hands."""
    async with client(running) as adapter:
        ids = await _submit(adapter, count, payload)
        ended = asyncio.ensure_future(adapter.wait_all(ids))
        await asyncio.sleep(0.5)  # its look-up of the backlog is no part of draining it
        worker = ray.remote(WorkerActor).remote(running.settings.model_dump_json(), POOL)
        serving = worker.serve_jobs.remote()
        infos = await ended
        finished = time.time()
        first = min(info.started_at.timestamp() for info in infos if info.started_at)
        assert {info.status for info in infos} == {"completed"}
        await worker.stop.remote(1.0)  # or the queue would give the next backlog to a poll of a dead one
        await serving
        ray.kill(worker)
        return count / (finished - first)
