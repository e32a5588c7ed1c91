"""A job that ends its worker's process each time it runs, alone and beside others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.views import JobInfo
from tests.crash.test_kills import kill
from tests.running_system import chat


@pytest.fixture
def system(shared_ray: None, tmp_path: Path) -> Iterator[launch.System]:
    """A system with a worker that runs one job at a time, one that runs many, and one that is not concerned."""
    settings = Settings(
        namespace=f"tests-poison-{tmp_path.name}",
        providers={
            "long": {"kind": "simulated", "latency_ms": 1_500},
            "shared": {"kind": "simulated", "latency_ms": 1_500},
            "instant": {"kind": "simulated"},
        },
        pools={
            "many": {"providers": ["shared"], "slots": 8, "workers": 1},
            "one": {"providers": ["long"], "slots": 1, "workers": 1},
            "other": {"providers": ["instant"], "slots": 8, "workers": 1},
        },
        journal={"path": tmp_path / "journal.db"},
    )
    with launch.start(settings, http=False) as running:
        yield running


def kill_whenever_it_runs(system: launch.System, poison: str, worker: str) -> tuple[JobInfo, int]:
    """Kill the worker each time ``poison`` is on it, until it is given up; return it and how many kills that took."""
    kills, attempts, deadline = 0, 0, time.monotonic() + 150.0
    while (info := system.adapter.get_job_status(poison)) is not None and time.monotonic() < deadline:
        if info.status == "dead_letter":
            return info, kills
        if info.status == "processing" and info.attempt > attempts:  # on disk before its worker began
            attempts = info.attempt
            kill(worker, system.settings.namespace)
            kills += 1
        time.sleep(0.05)
    raise AssertionError(f"after {kills} kills it is {info}")


@pytest.mark.timeout(180)
def test_a_job_that_kills_its_worker_each_time_is_given_up_and_no_other_is_hurt(system: launch.System) -> None:
    adapter = system.adapter
    poison = adapter.submit_jobs([chat("long", "poison")], {"priority": "urgent"})
    behind = adapter.submit_jobs([chat("long", f"behind {number}") for number in range(2)])
    elsewhere = adapter.submit_jobs([chat("instant", str(number)) for number in range(100)])
    info, kills = kill_whenever_it_runs(system, poison[0], "aiqueue-worker-one-0")
    assert (info.status, info.attempt, kills) == ("dead_letter", 3, 3)
    assert info.error is not None
    assert info.error.kind == "poison_job"
    infos = adapter.wait_all([*behind, *elsewhere])
    print(f"{kills} workers lost to one job, {len(infos)} other jobs")
    assert {(other.status, other.attempt) for other in infos} == {("completed", 1)}
    (found,) = adapter.dead_letters.find()
    assert found.job_id == poison[0]


@pytest.mark.timeout(240)
def test_a_killer_among_four_innocents_on_one_worker_is_given_up_and_they_complete(system: launch.System) -> None:
    adapter = system.adapter
    poison, *innocents = adapter.submit_jobs([chat("shared", str(number)) for number in range(5)])
    behind = adapter.submit_jobs([chat("shared", f"behind {number}") for number in range(10)])
    info, kills = kill_whenever_it_runs(system, poison, "aiqueue-worker-many-0")
    assert info.error is not None
    assert info.error.kind == "poison_job"
    assert kills <= 3 + 3 + 1, "in company of eight, four and two at most, and three times alone"
    infos = adapter.wait_all([*innocents, *behind])
    assert {other.status for other in infos} == {"completed"}
    print(f"{kills} workers lost to one job; the others took {sorted(other.attempt for other in infos)} attempts")
    (found,) = adapter.dead_letters.find()
    assert found.job_id == poison
