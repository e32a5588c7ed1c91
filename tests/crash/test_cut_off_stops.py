"""A stop that is cut off, at whatever moment, leaves nothing half alive: the next start has a system that works."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import ray

from actors import cluster, known_journals
from actors.options import POOL_MANAGER_NAME
from actors.system import stop_actors, stop_later
from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.config import Settings
from tests.running_system import SIMULATED, chat

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("shared_ray")]


def settings(tmp_path: Path, name: str) -> Settings:
    return Settings(namespace=f"tests-cut-{name}", journal={"path": tmp_path / "journal.db"}, **SIMULATED)


def until_gone(namespace: str) -> None:
    """Wait until no actor of a system is left."""
    deadline = time.monotonic() + 120.0
    while left := cluster.names_in(namespace):
        assert time.monotonic() < deadline, left
        threading.Event().wait(0.1)


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0, 3.0])
def test_after_a_stop_whose_caller_was_killed_the_next_start_has_a_system_that_works(
    tmp_path: Path, after_s: float
) -> None:
    made = settings(tmp_path, f"{after_s}")
    with launch.start(made, http=False) as first:
        ids = first.adapter.submit_jobs([chat("slow", str(n)) for n in range(40)])
        # What `up` does last, and then it is killed: nobody hears the answer.
        ray.get_actor(POOL_MANAGER_NAME, namespace=made.namespace).stop.remote(1.0)
        threading.Event().wait(after_s)
        with launch.start(made, http=False) as second:
            infos = second.adapter.wait_all([*ids, second.adapter.submit_job(chat())])
            assert {info.status for info in infos} == {"completed"}
            assert {info.attempt for info in infos} == {1}


def test_a_start_that_a_whole_stop_overtakes_has_a_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(tmp_path, "overtaken")

    def stopped_meanwhile(*_: object) -> None:
        assert stop_actors(made.namespace)

    monkeypatch.setattr(known_journals, "remember", stopped_meanwhile)  # called between the two starts
    with launch.start(made, http=False) as started:
        assert started.adapter.wait(started.adapter.submit_job(chat())).status == "completed"


@pytest.mark.parametrize("name", [QUEUE_ACTOR_NAME, POOL_MANAGER_NAME])
def test_what_a_cut_off_stop_has_ended_alone_is_started_again(tmp_path: Path, name: str) -> None:
    made = settings(tmp_path, name[-1])
    with launch.start(made, http=False):
        cluster.end_actor(ray.get_actor(name, namespace=made.namespace))
        with launch.start(made, http=False) as second:
            assert second.adapter.wait(second.adapter.submit_job(chat())).status == "completed"


def test_a_system_whose_stop_is_cut_off_while_http_drains_ends_by_itself(tmp_path: Path) -> None:
    made = settings(tmp_path, "switch")
    with launch.start(made, http=False) as running:
        job = running.adapter.submit_job(chat("slow"))
        stop_later(made.namespace, 0.1, 5.0, ask_s=60.0)
        until_gone(made.namespace)
    with launch.start(made, http=False) as again:
        assert again.adapter.wait(job).attempt == 1
