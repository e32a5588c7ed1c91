"""Rounds of kills at random moments, against a provider over HTTP that counts what it was asked."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.config import Settings
from aiqueue.scaling.load import decode_report
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.crash.test_kills import kill, pid_of

_ROUNDS, _JOBS = 20, 100
_WORKERS = [f"aiqueue-worker-http-{number}" for number in range(2)]
_VICTIMS = [
    *[(QUEUE_ACTOR_NAME,)] * 2,
    *[(worker,) for worker in _WORKERS],
    *[(QUEUE_ACTOR_NAME, worker) for worker in _WORKERS],
]


@pytest.fixture
def provider() -> Iterator[SimulatedServer]:
    """A provider that answers after 50 ms."""
    with SimulatedServer() as server:
        yield server


@pytest.fixture
def system(shared_ray: None, provider: SimulatedServer, tmp_path: Path) -> Iterator[launch.System]:
    """A system with two workers that call the provider, and no breaker: the faults here are not the provider's."""
    entry = {"kind": "openai", "base_url": provider.openai_url, "gate": {"breaker_failures": 10_000, "adaptive": False}}
    settings = Settings(
        namespace=f"tests-rounds-{tmp_path.name}",
        providers={"http": entry},
        pools={"http": {"providers": ["http"], "workers": len(_WORKERS), "slots": 16}},
        journal={"path": tmp_path / "journal.db"},
        retry={"base_s": 0.05, "max_crashes": 10},
    )
    with launch.start(settings, http=False) as running:
        yield running


def payload(text: str) -> dict[str, Any]:
    """A chat whose text says which job it is."""
    messages = [{"role": "user", "content": text}]
    return {"type": "chat_completion", "provider": "http", "model": "sim:ok+latency=0.05", "messages": messages}


def worker_id_of(name: str, namespace: str) -> str:
    """The id under which that worker's process takes jobs now."""
    pid_of(name, namespace)  # one that restarts is waited for
    report = ray.get(ray.get_actor(name, namespace=namespace).report.remote(), timeout=30)
    return decode_report(report).worker_id


def calls(provider: SimulatedServer) -> Counter[str]:
    """Calls that arrived, by the job's text."""
    return Counter(str(request.body["messages"][0]["content"]) for request in list(provider.requests))


@pytest.mark.timeout(600)
def test_every_job_ends_once_and_no_call_is_repeated_unless_its_worker_died(
    system: launch.System, provider: SimulatedServer
) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    adapter, namespace = system.adapter, system.settings.namespace
    lost_with_workers, rounds_with_loss = 0, 0
    for number in range(_ROUNDS):
        victims = draw.choice(_VICTIMS)
        about = f"seed {seed}, round {number}, killed {' and '.join(victims)}"
        # A worker that comes back has another id: this one's jobs may be repeated, and nobody else's.
        dying = {worker_id_of(name, namespace) for name in victims if name in _WORKERS}
        delay_s = draw.uniform(0.0, 0.3)
        timers = [threading.Timer(delay_s, kill, (victim, namespace)) for victim in victims]
        for timer in timers:
            timer.start()
        texts = [f"{number}-{job}" for job in range(_JOBS)]
        ids = adapter.submit_jobs([payload(text) for text in texts])
        infos = adapter.wait_all(ids)
        for timer in timers:
            timer.join()
        assert {info.status for info in infos} == {"completed"}, about
        made = calls(provider)
        lost_before = lost_with_workers
        for text, info in zip(texts, infos, strict=True):
            assert 1 <= made[text] <= info.attempt, f"{about}: {made[text]} calls for {text}, {info.attempt} attempts"
            assert len(info.attempts) == info.attempt - 1, about
            for earlier in info.attempts:
                assert earlier.outcome == "lost", f"{about}: {text} was repeated after it {earlier.outcome}"
                assert earlier.worker_id in dying, f"{about}: {text} was repeated though its worker lives"
                lost_with_workers += 1
        rounds_with_loss += lost_with_workers > lost_before
    stats = adapter.get_stats()
    assert rounds_with_loss > 0, f"seed {seed}: no worker was killed under a job, so nothing was tried"
    print(f"seed {seed}: {_ROUNDS} rounds, {stats.completed_jobs} jobs, {lost_with_workers} attempts lost with workers")
    assert (stats.total_jobs, stats.completed_jobs) == (_ROUNDS * _JOBS, _ROUNDS * _JOBS)
    assert (stats.queued_jobs, stats.processing_jobs) == (0, 0), "a lease leaked"


@pytest.mark.timeout(120)
def test_a_queue_that_hangs_is_ended_and_started_again(system: launch.System, provider: SimulatedServer) -> None:
    adapter, namespace = system.adapter, system.settings.namespace
    ids = adapter.submit_jobs([payload(f"before {number}") for number in range(50)])
    before = pid_of(QUEUE_ACTOR_NAME, namespace)
    threading.Event().wait(3.0)  # until the watchdog has seen it well once
    os.kill(before, signal.SIGSTOP)
    ids += adapter.submit_jobs([payload(f"after {number}") for number in range(50)])  # answered by the next one
    infos = adapter.wait_all(ids)
    assert pid_of(QUEUE_ACTOR_NAME, namespace) != before
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}
    assert set(calls(provider).values()) == {1}
