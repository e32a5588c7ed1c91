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

from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.config import Settings
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.crash.test_kills import kill, pid_of

_ROUNDS, _JOBS = 20, 100
_WORKERS = [f"aiqueue-worker-http-{number}" for number in range(2)]


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
        namespace="tests-rounds",
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
    lost_with_workers = 0
    for number in range(_ROUNDS):
        victim = draw.choice([QUEUE_ACTOR_NAME, QUEUE_ACTOR_NAME, *_WORKERS])
        timer = threading.Timer(draw.uniform(0.0, 0.3), kill, (victim, namespace))
        timer.start()
        texts = [f"{number}-{job}" for job in range(_JOBS)]
        ids = adapter.submit_jobs([payload(text) for text in texts])
        infos = adapter.wait_all(ids)
        timer.join()
        assert {info.status for info in infos} == {"completed"}, f"seed {seed}, round {number}, killed {victim}"
        made = calls(provider)
        repeated = {text: made[text] for text in texts if made[text] != 1}
        if victim == QUEUE_ACTOR_NAME:
            assert not repeated, f"seed {seed}, round {number}: calls repeated by a restart of the queue: {repeated}"
        lost_with_workers += sum(info.attempt - 1 for info in infos)
        for text, info in zip(texts, infos, strict=True):
            assert made[text] <= info.attempt, f"seed {seed}: more calls than attempts for {text}"
    stats = adapter.get_stats().adapter
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
