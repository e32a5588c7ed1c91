"""``aiqueue demo`` as its users start it: a process of its own with a Ray of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiqueue.levels import LEVELS
from tests.house_rules.sources import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_JOBS = 24
_TOKENS = 160  # a tenth of a second each: there must be a middle in which something can be killed


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a folder for Ray and its token. The path is short: Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="aqd"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def demo(home: Path, tiny_gguf: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a demo that has just been started; its results will be in ``home/"out.jsonl"``."""
    prompts = home / "prompts.jsonl"
    with prompts.open("w") as file:
        for number in range(_JOBS):
            line = {"priority": LEVELS[number % 4], "prompt": f"What is {number}?", "config": {"max_tokens": _TOKENS}}
            file.write(json.dumps(line) + "\n")
    command = [sys.executable, "-m", "aiqueue", "demo", "--model", str(tiny_gguf), "--prompts", str(prompts)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AIQUEUE_"))}
    process = subprocess.Popen(
        [*command, "--output", str(home / "out.jsonl")],
        cwd=ROOT,
        env={**clean, "HOME": str(home), "RAY_TMPDIR": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def results(home: Path) -> list[dict[str, Any]]:
    """Return what the demo wrote, a job a line."""
    return [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]


def queue_process(demo: subprocess.Popen[str]) -> psutil.Process:
    """Return the process of the demo's queue actor."""
    found = [child for child in psutil.Process(demo.pid).children(recursive=True) if _is_queue(child)]
    (process,) = found
    return process


def _is_queue(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).startswith("ray::QueueActor")
    except psutil.Error:  # it has just ended
        return False


def test_the_demo_completes_every_job_and_ends_well(demo: subprocess.Popen[str], home: Path) -> None:
    printed, _ = demo.communicate()
    assert demo.returncode == 0, printed
    jobs = results(home)
    assert Counter(job["priority"] for job in jobs) == dict.fromkeys(LEVELS, _JOBS // 4)
    assert {job["status"] for job in jobs} == {"completed"}
    assert all(job["result"]["tokens"] > 0 for job in jobs)
    assert "SLA" in printed
    assert f"All {_JOBS} jobs completed, each once" in printed
    assert not [line for line in printed.splitlines() if "Traceback" in line or "(raylet)" in line], printed


def test_a_queue_killed_in_the_middle_costs_the_demo_no_job(demo: subprocess.Popen[str], home: Path) -> None:
    assert demo.stdout is not None
    printed = ""
    for line in demo.stdout:
        printed += line
        if line.startswith(f"[{_JOBS // 4}/"):
            os.kill(queue_process(demo).pid, signal.SIGKILL)
            break
    rest, _ = demo.communicate()
    assert demo.returncode == 0, printed + rest
    jobs = results(home)
    assert len({job["jobId"] for job in jobs}) == len(jobs) == _JOBS
    assert {(job["status"], job["attempt"]) for job in jobs} == {("completed", 1)}, "a call was repeated"
    assert f"[{_JOBS}/{_JOBS}]" in rest, "the queue was killed too late to matter"
    assert f"All {_JOBS} jobs completed, each once" in rest
