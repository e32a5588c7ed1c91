"""``aiqueue up --detach``: what a supervisor runs, again and again, and what a Ray job may be ended after."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from tests.house_rules.sources import ROOT
from tests.running_system import chat

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_NAMESPACE = "tests-detached"
_CONFIG = f"""
namespace = "{_NAMESPACE}"
[providers.instant]
kind = "simulated"
[pools.fast]
providers = ["instant"]
workers = 1
"""

Command = Callable[..., str]


@pytest.fixture
def command(shared_ray: None, tmp_path: Path) -> Iterator[Command]:
    """Run ``aiqueue`` in a process of its own, on the Ray of the tests; return what it prints."""
    (tmp_path / "aiqueue.toml").write_text(_CONFIG)
    environ = {
        **os.environ,
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "AIQUEUE_CONFIG": str(tmp_path / "aiqueue.toml"),
        "AIQUEUE_JOURNAL__PATH": str(tmp_path / "journal.db"),
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> str:
        line = [sys.executable, "-m", "aiqueue", *arguments]
        done = subprocess.run(line, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    launch.stop(_NAMESPACE, http=False)


def pid_of_the_queue() -> int:
    """The process id of the queue's actor."""
    actor = ray.get_actor(QUEUE_ACTOR_NAME, namespace=_NAMESPACE)
    pid: int = ray.get(actor.pid.remote())
    return pid


def test_a_detached_system_outlives_its_command_and_is_left_alone_by_the_next(command: Command) -> None:
    up = ("up", "--detach", "--no-http")
    assert "aiqueue is up; `aiqueue down` stops it." in command(*up)
    with launch.connect(_NAMESPACE) as adapter:
        adapter.submit_job_with_callback(chat(), {})
        pid = pid_of_the_queue()
        again = command(*up)
        assert "aiqueue is up" in again
        assert "differ" not in again
        assert "Yours differ in journal.path; to use yours" in command(*up, "--journal", "other.db")
        assert pid_of_the_queue() == pid
        adapter.submit_job_with_callback(chat(), {})
    assert "Stopped the system" in command("down")
    assert not launch.stop(_NAMESPACE, http=False), "nothing is left to stop"
