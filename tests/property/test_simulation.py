"""The whole system on a simulated loop: a seed that breaks a promise is printed with the command that runs it again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.simulation.disk import RecordedDisk
from aiqueue.testing.simulation.many import failures, quiet, run_chunk
from aiqueue.testing.simulation.provider import Bill, SimulatedAnswers, WatchedRunner
from aiqueue.testing.simulation.run import simulate
from aiqueue.testing.simulation.world import World
from aiqueue.worker.loop import WorkerLoop
from tests.house_rules.sources import ROOT

_PRINTS_TRACES = """
import logging
from aiqueue.testing.simulation.run import simulate
logging.disable(logging.CRITICAL)
for seed in range(20):
    print(*simulate(seed).trace, sep="\\n")
"""


def traces(hash_seed: str) -> str:
    """Return what 20 seeds do, in a process of its own."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", _PRINTS_TRACES], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return run.stdout


def test_the_same_seed_gives_the_same_run_in_every_process() -> None:
    first = traces("1")
    assert first.count("queue starts 1\n") == 20
    assert first.splitlines() == traces("2").splitlines()


def test_many_seeds_meet_every_kind_of_trouble() -> None:
    with quiet():
        happened = set[str]().union(*(simulate(seed).happened for seed in range(80)))
    assert happened >= {"stall", "queue crash", "lost call", "call twice", "late call", "worker death", "clock set"}
    assert happened >= {"failed commit", "failed read", "limits", "odd text", "hang", "sleep", "client death"}


@pytest.mark.slow
@pytest.mark.timeout(3_600)  # 90 s on two idle cores
def test_many_seeds_break_no_promise() -> None:
    beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # processes that run tests
    processes = max(1, (os.cpu_count() or 1) // beside)
    report = next(failures(0, int(os.environ.get("SIMULATION_SEEDS", "10000")), processes), None)
    if report is not None:
        again = f"python -m aiqueue.testing.simulation --seed {report.seed} --trace"
        pytest.fail("\n".join((*report.trace, "", *report.violations, again)), pytrace=False)


@pytest.fixture
def forgetful_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each tenth commit be answered and not be kept."""
    keep, commits = RecordedDisk.write, [0]

    def write(disk: RecordedDisk, rows: Rows) -> None:
        commits[0] += 1
        if commits[0] % 10:
            keep(disk, rows)

    monkeypatch.setattr(RecordedDisk, "write", write)


@pytest.mark.usefixtures("forgetful_disk")
def test_a_disk_that_forgets_what_it_has_acknowledged_is_found() -> None:
    assert run_chunk(0, 20)


def test_a_worker_that_runs_an_attempt_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    run = WatchedRunner.run

    async def twice(runner: WatchedRunner, job: object) -> object:
        await run(runner, job)  # type: ignore[arg-type]
        return await run(runner, job)  # type: ignore[arg-type]

    monkeypatch.setattr(WatchedRunner, "run", twice)
    found = {violation.partition(":")[0] for report in run_chunk(0, 20) for violation in report.violations}
    assert {"attempt run twice", "paid too often"} <= found


def test_a_worker_that_drains_and_leaves_claims_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(loop: WorkerLoop, *, grace_s: float) -> None:
        loop._slots = 0

    monkeypatch.setattr(WorkerLoop, "stop", leave)
    found = {violation.partition(":")[0] for report in run_chunk(0, 60) for violation in report.violations}
    assert "left behind by a worker that drained" in found


@pytest.mark.parametrize("slept_s", [0.0, 3_600.0])
def test_a_refused_job_is_run_again_at_once_only_if_the_machine_slept(slept_s: float) -> None:
    world, bill = World(0, only=("none",)), Bill()
    answers = SimulatedAnswers(world, bill, lambda: None)
    bill.refused_at["job"] = world.passed()
    world.change_clock(slept_s=slept_s)
    body = {"messages": [{"content": "at once"}]}
    asked = ProviderRequest(job_id="job", type="chat_completion", model="model-a", body=body, timeout_s=30.0)
    world.loop.run_until_complete(answers.run(asked))
    assert bool(world.violations) == (slept_s == 0.0)
