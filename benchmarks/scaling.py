"""From a burst to a new worker at work; and both scaling policies on the same load shapes, simulated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from aiqueue.launch import System
from aiqueue.scaling import ScalingRule
from aiqueue.testing.scaling_simulation import SHAPES, Simulation
from benchmarks.harness import PAYLOAD, Figure, client, system

_BURST = 400
_SETTLED_S = 3.0  # for the first worker to be there and the load to have been looked at


def run() -> Iterator[Figure]:
    """Yield the figures."""
    limits = {"workers": None, "min_workers": 1, "default_workers": 1, "max_workers": 4}
    with system(slots=8, pool=limits) as running:
        seconds = asyncio.run(_to_a_new_worker(running))
    yield Figure(name="burst to a new worker claiming", value=seconds, unit="s", floor="3")
    for name, shape in SHAPES.items():
        for rule in (ScalingRule(slots=8), ScalingRule(slots=8, policy="sla")):
            outcome = Simulation(rule).run(shape)
            label = f"{name}, {rule.policy}"
            yield Figure(name=f"{label}: late", value=outcome.late, unit=f"of {outcome.jobs:,} jobs")
            yield Figure(name=f"{label}: workers", value=outcome.worker_seconds, unit="worker-seconds")


async def _to_a_new_worker(running: System) -> float:
    """Seconds from submitting a burst to the first claim of a worker that was not there."""
    payload = {**PAYLOAD, "provider": "waiting"}
    async with client(running) as adapter:
        (before,) = await adapter.wait_all(await adapter.submit_jobs([payload]))
        await asyncio.sleep(_SETTLED_S)
        started = time.time()
        infos = await adapter.wait_all(await adapter.submit_jobs([payload] * _BURST))
        claims = [
            info.started_at.timestamp() for info in infos if info.started_at and info.worker_id != before.worker_id
        ]
        return min(claims) - started
