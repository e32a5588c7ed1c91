"""Pools that grow, shrink and mend themselves, with real worker processes on one node."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.cluster import names_in
from actors.options import POOL_MANAGER_NAME
from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.scaling.load import WorkerReport, decode_report
from tests.crash.test_kills import kill, pid_of
from tests.running_system import chat
from tests.tools.pool_events import PoolEvents, eventually

_POOL = "pool"
_WORKER = f"aiqueue-worker-{_POOL}-"

Start = Callable[..., launch.System]


@pytest.fixture
def start(shared_ray: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start a system with one pool of four slots a worker, whose jobs take 300 ms."""
    systems: list[launch.System] = []

    def with_pool(**pool: Any) -> launch.System:
        settings = Settings(
            namespace=f"tests-{request.node.name}"[:60],
            providers={"slow": {"kind": "simulated", "latency_ms": 300}},
            pools={_POOL: {"providers": ["slow"], "slots": 4, "health_check_interval_ms": 1_000, **pool}},
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
    return sorted(name for name in names_in(system.settings.namespace) if name.startswith(_WORKER))


def report_of(system: launch.System, name: str) -> WorkerReport:
    """What a worker says of itself."""
    actor = ray.get_actor(name, namespace=system.settings.namespace)
    return decode_report(ray.get(actor.report.remote(), timeout=30))


def lost_attempts(system: launch.System, ids: list[str]) -> list[str]:
    """Why earlier attempts of these jobs came to nothing."""
    infos = [system.adapter.get_job_status(job_id) for job_id in ids]
    return [attempt.error.message if attempt.error else "" for info in infos if info for attempt in info.attempts]


def fatten(system: launch.System, name: str, mb: int) -> None:
    """Let a worker own so much memory more."""
    actor = ray.get_actor(name, namespace=system.settings.namespace)

    def grow(self: Any) -> None:
        self.ballast = bytearray(b"x") * (mb * 2**20)

    ray.get(actor.__ray_call__.remote(grow), timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["threshold", "sla"])
def test_a_burst_brings_workers_and_its_end_takes_the_idle_ones_away(start: Start, policy: str) -> None:
    limits = {"min_workers": 1, "default_workers": 1, "max_workers": 3}
    steps = {"scale_up_threshold": 20, "scale_up_cooldown_ms": 200, "scale_down_cooldown_ms": 1_000}
    system = start(scaling_policy=policy, **limits, **steps)
    events = PoolEvents(system)
    urgent = {"priority": "urgent"}
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(200)], urgent)
    events.wait_for("scaled-up", new_size=3)
    infos = system.adapter.wait_all(ids)
    assert [info.result.text for info in infos if info.result] == [str(n) for n in range(200)]
    assert {info.attempt for info in infos} == {1}, "a worker was stopped while it was busy"
    assert len({info.worker_id for info in infos}) == 3
    events.wait_for("scaled-down", new_size=1)
    eventually(lambda: len(workers(system)) == 1, "the workers that went are gone")
    eventually(lambda: system.adapter.get_stats().worker_pool_stats.total_workers == 1, "the queue has forgotten them")
    sizes = [1, *(data["new_size"] for _, data in events.seen)]
    assert [data["previous_size"] for _, data in events.seen] == sizes[:-1]
    assert {data["pool"] for _, data in events.seen} == {_POOL}


@pytest.mark.slow
def test_a_new_manager_finds_the_workers_that_the_old_one_added(start: Start) -> None:
    system = start(min_workers=1, default_workers=1, max_workers=2, scale_up_threshold=5, scale_down_cooldown_ms=60_000)
    events = PoolEvents(system)
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(40)])
    events.wait_for("scaled-up", new_size=2)
    system.adapter.wait_all(ids)
    before = {name: report_of(system, name).worker_id for name in workers(system)}
    kill(POOL_MANAGER_NAME, system.settings.namespace)
    pid_of(POOL_MANAGER_NAME, system.settings.namespace)
    again = system.adapter.wait_all(system.adapter.submit_jobs([chat("slow", str(n)) for n in range(8)]))
    assert {info.worker_id for info in again} <= set(before.values())
    assert {name: report_of(system, name).worker_id for name in workers(system)} == before
    manager = ray.get_actor(POOL_MANAGER_NAME, namespace=system.settings.namespace)
    eventually(lambda: ray.get(manager.workers.remote()) == before, "the new manager knows them all")
    kill(workers(system)[0], system.settings.namespace)  # and watches over them
    events.wait_for("worker-replaced", worker_id=before[workers(system)[0]])


@pytest.mark.slow
def test_a_worker_killed_under_its_jobs_is_replaced_and_they_run_again(start: Start) -> None:
    system = start(workers=1)
    events = PoolEvents(system)
    old = report_of(system, f"{_WORKER}0").worker_id
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(16)])
    system.adapter.wait_all(ids[:4])
    kill(f"{_WORKER}0", system.settings.namespace)
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    assert events.wait_for("worker-unhealthy") == {"pool": _POOL, "worker_id": old, "reason": "its process died"}
    replaced = events.wait_for("worker-replaced", worker_id=old)
    assert replaced["new_worker_id"] in {info.worker_id for info in infos}


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_its_jobs_run_again_with_the_reason(start: Start) -> None:
    system = start(workers=1)
    events = PoolEvents(system)
    stopped = report_of(system, f"{_WORKER}0")
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(16)])
    system.adapter.wait_all(ids[:4])
    os.kill(stopped.pid, signal.SIGSTOP)
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    reason = events.wait_for("worker-unhealthy", worker_id=stopped.worker_id)["reason"]
    assert reason == "heartbeat: no answer to 3 checks of 1 s"
    events.wait_for("worker-replaced", worker_id=stopped.worker_id, reason=reason)
    lost = lost_attempts(system, ids)
    assert lost, "its jobs were lost with it"
    assert all(reason in message for message in lost)
    eventually(lambda: workers(system) == [f"{_WORKER}1"], "the hung worker is gone")


@pytest.mark.slow
def test_a_fat_worker_ends_its_jobs_first_and_one_far_too_fat_does_not(start: Start) -> None:
    baseline_mb = 40.0 + 2 * 150.0  # far above what a worker owns to begin with
    system = start(workers=1, max_memory_mb=baseline_mb, hard_memory_factor=2.0)
    events = PoolEvents(system)
    first = report_of(system, f"{_WORKER}0")
    assert 0 < first.private_mb < baseline_mb
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(24)])
    fatten(system, f"{_WORKER}0", 350)
    soft = events.wait_for("worker-unhealthy", worker_id=first.worker_id)
    assert "over the limit of 340 MB" in soft["reason"]
    second = events.wait_for("worker-replaced", worker_id=first.worker_id)["new_worker_id"]
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    assert not any(lost_attempts(system, ids)), (
        "a worker that drains ends its jobs, or hands back what it has not begun"
    )
    eventually(lambda: workers(system) == [f"{_WORKER}1"], "the fat worker is gone")

    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(40)])
    fatten(system, f"{_WORKER}1", 900)
    hard = events.wait_for("worker-unhealthy", worker_id=second)
    assert "over the hard limit of 680 MB" in hard["reason"]
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    lost = lost_attempts(system, ids)
    assert lost
    assert all(hard["reason"] in message for message in lost)
