"""``kill -9`` of each kind of actor under load. Every accepted job ends once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from actors.options import POOL_MANAGER_NAME
from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from tests.running_system import chat

_JOBS, _KILLS = 1_200, 6


def pid_of(name: str, namespace: str) -> int:
    """The process of a named actor; one that restarts just now is waited for."""
    for _ in range(100):
        try:
            return int(ray.get(ray.get_actor(name, namespace=namespace).pid.remote(), timeout=10))
        except (RayActorError, GetTimeoutError):
            threading.Event().wait(0.1)
    raise AssertionError(f"{name} did not come back")


def kill(name: str, namespace: str) -> None:
    """End exactly that actor's process."""
    os.kill(pid_of(name, namespace), signal.SIGKILL)


def test_a_killed_queue_loses_no_job_and_repeats_no_call(own_system: launch.System) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw, namespace = random.Random(seed), own_system.settings.namespace
    ended, recoveries_s = threading.Event(), list[float]()

    def killer() -> int:
        while len(recoveries_s) < _KILLS and not ended.wait(draw.uniform(0.2, 0.8)):
            kill(QUEUE_ACTOR_NAME, namespace)
            killed_at = time.monotonic()
            pid_of(QUEUE_ACTOR_NAME, namespace)  # it answers when its journal is loaded
            recoveries_s.append(time.monotonic() - killed_at)
        return len(recoveries_s)

    with ThreadPoolExecutor(1) as thread:
        kills = thread.submit(killer)
        ids = []
        for at in range(0, _JOBS, 50):
            ids += own_system.adapter.submit_jobs([chat("slow", f"{at + n}") for n in range(50)])
            if at == _JOBS // 2:
                own_system.adapter.wait_all(ids[:100])
        infos = own_system.adapter.wait_all(ids)
        ended.set()
        assert kills.result() > 0
    print(f"the queue answered again after {', '.join(f'{took_s:.1f}' for took_s in recoveries_s)} s")
    assert [info.result.text for info in infos if info.result] == [str(n) for n in range(_JOBS)]
    assert {info.attempt for info in infos} == {1}, "a running call was repeated"
    stats = own_system.adapter.get_stats()
    assert (stats.total_jobs, stats.completed_jobs, stats.processing_jobs) == (_JOBS, _JOBS, 0)


@pytest.mark.parametrize("name", ["aiqueue-worker-slow-0", POOL_MANAGER_NAME])
def test_jobs_of_a_killed_worker_run_again_and_a_killed_manager_disturbs_none(
    own_system: launch.System, name: str
) -> None:
    adapter, namespace = own_system.adapter, own_system.settings.namespace
    ids = adapter.submit_jobs([chat("slow", str(n)) for n in range(40)])
    adapter.wait_all(ids[:8])
    kill(name, namespace)
    infos = adapter.wait_all(ids)
    assert [info.result.text for info in infos if info.result] == [str(n) for n in range(40)]
    repeated = [info for info in infos if info.attempt > 1]
    assert len(repeated) <= 8
    assert bool(repeated) == (name != POOL_MANAGER_NAME)
    assert adapter.get_stats().processing_jobs == 0
