"""A system with one small pool, and what its workers say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.cluster import names_in
from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.scaling.load import WorkerReport, decode_report

POOL = "pool"
WORKER = f"aiqueue-worker-{POOL}-"

Start = Callable[..., launch.System]


@pytest.fixture
def start(shared_ray: None, tmp_path: Path) -> Iterator[Start]:
    """Start a system with one pool of four slots a worker, whose jobs take 300 ms."""
    systems: list[launch.System] = []

    def with_pool(**pool: Any) -> launch.System:
        settings = Settings(
            namespace=f"tests-{tmp_path.name}",
            providers={"slow": {"kind": "simulated", "latency_ms": 300}},
            pools={POOL: {"providers": ["slow"], "slots": 4, "health_check_interval_ms": 5_000, **pool}},
            journal={"path": tmp_path / "journal.db"},
            scaling_interval_ms=200,
        )
        systems.append(launch.start(settings, http=False))
        return systems[-1]

    yield with_pool
    for system in systems:
        system.stop()


def workers(system: launch.System) -> list[str]:
    """The names of the living workers."""
    return sorted(name for name in names_in(system.settings.namespace) if name.startswith(WORKER))


def report_of(system: launch.System, name: str) -> WorkerReport:
    """What a worker says of itself."""
    actor = ray.get_actor(name, namespace=system.settings.namespace)
    return decode_report(ray.get(actor.report.remote(), timeout=30))


def in_worker(system: launch.System, name: str, work: Callable[[Any], Any]) -> Any:
    """Do ``work`` on a worker, in its process but not on its event loop, and return what it returns."""
    actor = ray.get_actor(name, namespace=system.settings.namespace)
    return ray.get(actor.__ray_call__.remote(work), timeout=60)


def lost_attempts(system: launch.System, ids: list[str]) -> list[str]:
    """Why earlier attempts of these jobs came to nothing."""
    infos = [system.adapter.get_job_status(job_id) for job_id in ids]
    return [attempt.error.message if attempt.error else "" for info in infos if info for attempt in info.attempts]
