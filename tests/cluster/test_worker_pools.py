"""Pools that grow, shrink and mend themselves, with real worker processes on one node."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import ray

from actors.options import POOL_MANAGER_NAME
from aiqueue import launch
from tests.cluster.conftest import POOL, WORKER, Start, lost_attempts, report_of, workers
from tests.crash.test_kills import kill, pid_of
from tests.running_system import chat
from tests.tools.pool_events import PoolEvents, eventually


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
    assert {data["pool"] for _, data in events.seen} == {POOL}


@pytest.mark.slow
def test_a_new_manager_finds_the_workers_that_the_old_one_added(start: Start) -> None:
    system = start(
        min_workers=1, default_workers=1, max_workers=2, scale_up_threshold=5, scale_down_cooldown_ms=3_600_000
    )
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
    old = report_of(system, f"{WORKER}0").worker_id
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(16)])
    system.adapter.wait_all(ids[:4])
    kill(f"{WORKER}0", system.settings.namespace)
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    assert events.wait_for("worker-unhealthy") == {"pool": POOL, "worker_id": old, "reason": "its process died"}
    replaced = events.wait_for("worker-replaced", worker_id=old)
    assert replaced["new_worker_id"] in {info.worker_id for info in infos}


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_its_jobs_run_again_with_the_reason(start: Start) -> None:
    system = start(workers=1, health_check_interval_ms=2_000)
    events = PoolEvents(system)
    stopped = report_of(system, f"{WORKER}0")
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(16)])
    system.adapter.wait_all(ids[:4])
    os.kill(stopped.pid, signal.SIGSTOP)
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    reason = events.wait_for("worker-unhealthy", worker_id=stopped.worker_id)["reason"]
    assert reason == "heartbeat: no answer to 3 checks of 2 s"
    events.wait_for("worker-replaced", worker_id=stopped.worker_id, reason=reason)
    lost = lost_attempts(system, ids)
    assert lost, "its jobs were lost with it"
    assert all(reason in message for message in lost)
    eventually(lambda: workers(system) == [f"{WORKER}1"], "the hung worker is gone")


@pytest.mark.slow
def test_a_fat_worker_ends_its_jobs_first_and_one_far_too_fat_does_not(start: Start) -> None:
    baseline_mb = 40.0 + 2 * 150.0  # far above what a worker owns to begin with
    system = start(workers=1, max_memory_mb=baseline_mb, hard_memory_factor=2.0, health_check_interval_ms=2_000)
    events = PoolEvents(system)
    first = report_of(system, f"{WORKER}0")
    assert 0 < first.private_mb < baseline_mb
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(48)])
    fatten(system, f"{WORKER}0", 350)
    soft = events.wait_for("worker-unhealthy", worker_id=first.worker_id)
    assert "over the limit of 340 MB" in soft["reason"]
    second = events.wait_for("worker-replaced", worker_id=first.worker_id)["new_worker_id"]
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    assert not any(lost_attempts(system, ids)), (
        "a worker that drains ends its jobs, or hands back what it has not begun"
    )
    eventually(lambda: workers(system) == [f"{WORKER}1"], "the fat worker is gone")

    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(80)])
    fatten(system, f"{WORKER}1", 900)
    hard = events.wait_for("worker-unhealthy", worker_id=second)
    assert "over the hard limit of 680 MB" in hard["reason"]
    infos = system.adapter.wait_all(ids)
    assert {info.status for info in infos} == {"completed"}
    lost = lost_attempts(system, ids)
    assert lost
    assert all(hard["reason"] in message for message in lost)
