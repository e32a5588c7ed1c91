"""A million queued jobs: what each costs the queue actor in memory, and how long a restart takes to load them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.exceptions import RayActorError

from aiqueue.launch import System
from benchmarks.harness import PAYLOAD, Figure, client, queue_actor, system

_JOBS, _LIST = 1_000_000, 10_000


def run() -> Iterator[Figure]:
    """Yield the figures."""
    with system(workers=0) as running:
        queue = queue_actor(running)
        before = _rss(ray.get(queue.pid.remote()))
        asyncio.run(_fill(running))
        pid = ray.get(queue.pid.remote())
        each = (_rss(pid) - before - running.settings.journal.payload_cache_bytes) / _JOBS
        yield Figure(name="memory of a queued job", value=each, unit="bytes", floor="≤ 600", peer="858")
        os.kill(pid, signal.SIGKILL)
        started = time.perf_counter()
        _wait_for(queue)
        yield Figure(name="reload of 1,000,000 jobs", value=time.perf_counter() - started, unit="s", floor="≤ 20")
        after = (_rss(ray.get(queue.pid.remote())) - before) / _JOBS
        yield Figure(name="memory of a reloaded job", value=after, unit="bytes", floor="≤ 600", peer="858")


async def _fill(running: System) -> None:
    async with client(running) as adapter:
        for _ in range(_JOBS // _LIST):
            await adapter.submit_jobs([PAYLOAD] * _LIST)


def _wait_for(queue: object) -> None:
    while True:
        try:
            ray.get(queue.hello.remote())  # type: ignore[attr-defined]
        except RayActorError:
            time.sleep(0.05)
        else:
            return


def _rss(pid: int) -> int:
    """Resident memory in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
