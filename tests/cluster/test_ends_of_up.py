"""`aiqueue up` that is ended as supervisors and `ray job stop` end it: SIGTERM, and SIGKILL soon after."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.running_system import chat
from tests.tools.pool_events import eventually
from tests.tools.two_nodes import LIMIT_S, TwoNodes, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = """
[providers.slow]
kind = "simulated"
latency_ms = 300
[pools.slow]
providers = ["slow"]
slots = 4
workers = 1
num_cpus = 0
[journal]
path = "{folder}/journal.db"
[http]
port = {port}
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    """A cluster for all tests here; each leaves it without a system."""
    with two_nodes() as begun:
        settings = SETTINGS.format(folder=begun.folder, port=begun.http_port)
        (begun.folder / "aiqueue.toml").write_text(settings)
        yield begun


@pytest.fixture
def http(nodes: TwoNodes) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=nodes.urls[0], trust_env=False, timeout=LIMIT_S) as client:
        yield client


def submit(http: httpx.Client, count: int) -> list[str]:
    """Submit jobs; return their ids."""
    body = {"jobs": [chat("slow", str(n)) for n in range(count)]}
    accepted = http.post("/ai/jobs/batch", json=body)
    assert accepted.status_code == 202, accepted.text
    ids: list[str] = accepted.json()["jobIds"]
    return ids


def job(http: httpx.Client, job_id: str) -> Any:
    """Return a job as HTTP tells of it, once it has ended; the front may be coming up."""
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        with suppress(httpx.TransportError):
            answer = http.get(f"/ai/jobs/{job_id}")
            if answer.is_success:
                found.update(answer.json())
        return found.get("status") in {"completed", "failed", "dead_letter", "cancelled"}

    eventually(has_ended, f"{job_id} ends", LIMIT_S)
    return found


def assert_starts_and_serves(nodes: TwoNodes, http: httpx.Client, earlier: list[str]) -> None:
    """Run `aiqueue up` once more: there is a whole system then, with all jobs of the one before. End it."""
    said = nodes.aiqueue("up", "--detach", "--config=aiqueue.toml")
    assert said.returncode == 0, said.stdout + said.stderr
    assert {job(http, job_id)["status"] for job_id in [*earlier, *submit(http, 1)]} == {"completed"}
    said = nodes.aiqueue("down")
    assert said.returncode == 0, said.stdout + said.stderr
    assert not nodes.applications()


@pytest.mark.parametrize("after_s", [0.1, 3.0])
def test_after_an_up_that_is_killed_while_it_ends_the_next_one_has_a_whole_system(
    nodes: TwoNodes, http: httpx.Client, after_s: float
) -> None:
    with nodes.begun("up", "-m", "aiqueue", "up", "--config=aiqueue.toml") as process:
        eventually(lambda: "is up" in nodes.log("up") or process.poll() is not None, "the system is up", LIMIT_S)
        assert process.poll() is None, nodes.log("up")
        earlier = submit(http, 40)
        process.terminate()
        threading.Event().wait(after_s)
        process.kill()
        assert_starts_and_serves(nodes, http, earlier)


def test_a_system_that_is_a_ray_job_is_stopped_with_it_and_starts_again(nodes: TwoNodes, http: httpx.Client) -> None:
    entrypoint = (sys.executable, "-m", "aiqueue", "up", f"--config={nodes.folder}/aiqueue.toml")
    said = nodes.ray("job", "submit", "--no-wait", "--submission-id=up", "--", *entrypoint)
    assert said.returncode == 0, said.stdout + said.stderr
    eventually(lambda: "is up" in nodes.ray("job", "logs", "up").stdout, "the system is up", LIMIT_S)
    earlier = submit(http, 40)
    said = nodes.ray("job", "stop", "up")
    assert said.returncode == 0, said.stdout + said.stderr
    eventually(lambda: not nodes.applications(), "its front has ended", LIMIT_S)
    eventually(lambda: nodes.aiqueue("stats").returncode != 0, "its queue has ended", LIMIT_S)
    assert_starts_and_serves(nodes, http, earlier)
