"""One job on an idle queue, from submit to its result in hand, beside a no-op actor call in the same run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiqueue.launch import System
from benchmarks.harness import PAYLOAD, Figure, at, client, queue_actor, system, timed_ms

_WARM_UP, _TIMES = 50, 500


def run() -> Iterator[Figure]:
    """Yield the figures."""
    with system() as running:
        call, trip = asyncio.run(_measure(running))
    yield Figure(name="no-op actor call, p50", value=at(call, 0.5), unit="ms")
    yield Figure(name="round trip, p50", value=at(trip, 0.5), unit="ms", floor="5", peer="2.5")
    yield Figure(name="round trip, p99", value=at(trip, 0.99), unit="ms", floor="12", peer="4.3")
    yield Figure(name="round trip, p50 in calls", value=at(trip, 0.5) / at(call, 0.5), unit="×", floor="4, then 3")


async def _measure(running: System) -> tuple[list[float], list[float]]:
    queue = queue_actor(running)
    async with client(running) as adapter:

        async def job() -> None:
            await adapter.submit_job_with_callback(PAYLOAD)

        async def no_op() -> None:
            await queue.no_op.remote()

        await timed_ms(job, _WARM_UP)
        calls, trips = [], []
        for _ in range(5):  # in turns, so that a noisy moment of the machine hits both
            calls += await timed_ms(no_op, _TIMES // 5)
            trips += await timed_ms(job, _TIMES // 5)
    return sorted(calls), sorted(trips)
