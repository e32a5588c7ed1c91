"""What the scenarios share: a system on a Ray of its own, payloads, percentiles, figures."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from aiqueue import launch
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME, RayTransport
from aiqueue.config import Settings

PAYLOAD: dict[str, Any] = {
    "type": "chat_completion",
    "provider": "instant",
    "model": "simulated",
    "messages": [
        {"role": "system", "content": "You are a careful assistant that answers in one short paragraph. " * 4},
        {"role": "user", "content": "Why does a queue that acknowledges before it writes lose jobs? " * 3},
    ],
    "config": {"temperature": 0.7, "max_tokens": 128},
}
POOL = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. ``floor``: what it must at least (or at most) be; ``peer``: the fastest other queue."""

    name: str
    value: float
    unit: str
    floor: str = ""
    peer: str = ""


@contextmanager
def system(
    *, workers: int = 1, slots: int = 256, http: bool = False, pool: Mapping[str, Any] | None = None, **changes: Any
) -> Iterator[launch.System]:
    """A system with providers that answer at once, after 5 and after 200 ms.

    On a Ray of its own, with an empty journal and durability full.
    """
    with tempfile.TemporaryDirectory(prefix="aiq", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        settings = Settings(
            namespace="aiqueue-bench",
            providers={
                "instant": {"kind": "simulated"},
                "five_ms": {"kind": "simulated", "latency_ms": 5},
                "waiting": {"kind": "simulated", "latency_ms": 200},
            },
            pools={
                POOL: {
                    "providers": ["instant", "five_ms", "waiting"],
                    "workers": workers,
                    "slots": slots,
                    **(pool or {}),
                }
            },
            journal={"path": Path(folder) / "journal.db", "notes": folder},
            http={"port": 0},
            **changes,
        )
        with launch.start(settings, http=http, address="local") as running:
            yield running


@asynccontextmanager
async def client(running: launch.System) -> AsyncIterator[AsyncAIQueueAdapter]:
    """An asynchronous adapter in this process's own loop."""
    async with AsyncAIQueueAdapter(RayTransport(running.settings.namespace)) as adapter:
        yield adapter


def queue_actor(running: launch.System) -> Any:
    """The queue actor's handle."""
    return ray.get_actor(QUEUE_ACTOR_NAME, namespace=running.settings.namespace)


async def timed_ms(call: Callable[[], Awaitable[Any]], times: int) -> list[float]:
    """Sorted durations of ``times`` calls, one after the other, in milliseconds."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        await call()
        durations.append((time.perf_counter() - started) * 1e3)
    return sorted(durations)


def at(durations: list[float], share: float) -> float:
    """The value at ``share`` (0 to 1) of sorted durations."""
    return durations[min(len(durations) - 1, int(len(durations) * share))]
