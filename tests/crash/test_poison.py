"""A job that ends its worker's process each time it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiqueue import launch
from aiqueue.config import Settings
from tests.crash.test_kills import kill
from tests.running_system import chat

_WORKER = "aiqueue-worker-one-0"


@pytest.fixture
def system(shared_ray: None, tmp_path: Path) -> Iterator[launch.System]:
    """A system with a worker that runs one job at a time, and another that is not concerned."""
    settings = Settings(
        namespace="tests-poison",
        providers={"long": {"kind": "simulated", "latency_ms": 1_500}, "instant": {"kind": "simulated"}},
        pools={
            "one": {"providers": ["long"], "slots": 1, "workers": 1},
            "other": {"providers": ["instant"], "slots": 8, "workers": 1},
        },
        journal={"path": tmp_path / "journal.db"},
    )
    with launch.start(settings, http=False) as running:
        yield running


@pytest.mark.timeout(180)
def test_a_job_that_kills_its_worker_each_time_is_given_up_and_no_other_is_hurt(system: launch.System) -> None:
    adapter = system.adapter
    poison = adapter.submit_jobs([chat("long", "poison")], {"priority": "urgent"})
    behind = adapter.submit_jobs([chat("long", f"behind {number}") for number in range(2)])
    elsewhere = adapter.submit_jobs([chat("instant", str(number)) for number in range(100)])
    kills, deadline = 0, time.monotonic() + 120.0
    while (info := adapter.get_job_status(poison[0])) is not None and time.monotonic() < deadline:
        if info.status == "dead_letter":
            break
        if info.status == "processing" and info.attempt == kills + 1:  # on disk before its worker began
            kill(_WORKER, system.settings.namespace)
            kills += 1
        time.sleep(0.05)
    assert info is not None
    assert (info.status, info.attempt, kills) == ("dead_letter", 3, 3)
    assert info.error is not None
    assert info.error.kind == "poison_job"
    infos = adapter.wait_all([*behind, *elsewhere])
    print(f"{kills} workers lost to one job, {len(infos)} other jobs")
    assert {(other.status, other.attempt) for other in infos} == {("completed", 1)}
    (found,) = adapter.dead_letters.find()
    assert found.job_id == poison[0]
