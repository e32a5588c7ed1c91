"""Workers that can't get ready, and systems that are stopped while their manager is not there."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import ray

from actors.cluster import names_in
from actors.options import POOL_MANAGER_NAME
from actors.system import stop_actors
from aiqueue import launch
from aiqueue.config import Settings
from tests.crash.test_kills import kill
from tests.running_system import chat
from tests.tools.pool_events import PoolEvents, eventually


class ToFetch(NamedTuple):
    """A system whose one worker has to fetch its model where there is no network."""

    settings: Settings
    file: Path  #: where the model is to lie


@pytest.fixture
def to_fetch(shared_ray: None, tiny_gguf: Path, tmp_path: Path) -> ToFetch:
    """The worker may take ten seconds to begin."""
    checksum = hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
    settings = Settings(
        namespace=f"tests-{tmp_path.name}",
        providers={"local": {"kind": "llama_cpp", "models": ["m"], "context_tokens": 512}},
        models={
            "folder": tmp_path / "models",
            "hub_url": "http://127.0.0.1:9",
            "files": {"m": {"repo": "who/what", "file": "m.gguf", "sha256": checksum}},
        },
        pools={
            "local": {"providers": ["local"], "workers": 1, "max_start_ms": 10_000, "health_check_interval_ms": 4_000}
        },
        journal={"path": tmp_path / "journal.db"},
    )
    return ToFetch(settings, tmp_path / "models" / f"{checksum[:16]}-m.gguf")


def submit(system: launch.System) -> list[str]:
    job = {**chat("local", config={"max_tokens": 4, "temperature": 0}), "model": "m"}
    return system.adapter.submit_jobs([job] * 5, {"max_retries": 0})


@pytest.mark.slow
def test_jobs_wait_for_a_worker_that_can_not_fetch_its_model_yet(to_fetch: ToFetch, tiny_gguf: Path) -> None:
    with launch.start(to_fetch.settings, http=False) as system:
        events = PoolEvents(system)
        ids = submit(system)
        assert "can't be fetched from this node" in events.wait_for("worker-unhealthy")["reason"]
        infos = [system.adapter.get_job_status(job_id) for job_id in ids]
        assert [(info.status, info.attempt) for info in infos if info] == [("queued", 0)] * 5
        shutil.copy(tiny_gguf, to_fetch.file)
        finished = system.adapter.wait_all(ids)
        assert [(info.status, info.attempt) for info in finished] == [("completed", 1)] * 5


@pytest.mark.slow
def test_a_worker_that_hangs_while_it_gets_ready_is_replaced(to_fetch: ToFetch, tiny_gguf: Path) -> None:
    to_fetch.file.parent.mkdir()
    with (
        to_fetch.file.with_name(f"{to_fetch.file.name}.lock").open("w") as lock,
        launch.start(to_fetch.settings, http=False) as system,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of this node fetches it, and never comes to an end
        events = PoolEvents(system)
        ids = submit(system)
        reason = events.wait_for("worker-unhealthy")["reason"]
        assert re.fullmatch(r"start: not ready to work after \d+ s", reason)
        events.wait_for("worker-replaced", reason=reason)
        shutil.copy(tiny_gguf, to_fetch.file)
        finished = system.adapter.wait_all(ids)
        assert [(info.status, info.attempt) for info in finished] == [("completed", 1)] * 5


@pytest.mark.slow
@pytest.mark.parametrize("for_good", [False, True])
def test_no_worker_outlives_a_system_that_is_stopped_while_its_manager_is_away(
    own_system: launch.System, *, for_good: bool
) -> None:
    namespace = own_system.settings.namespace
    eventually(lambda: sum(name.startswith("aiqueue-worker-") for name in names_in(namespace)) == 2, "both workers")
    if for_good:
        ray.kill(ray.get_actor(POOL_MANAGER_NAME, namespace=namespace), no_restart=True)
    else:
        kill(POOL_MANAGER_NAME, namespace)
    assert stop_actors(namespace, grace_s=1.0)
    eventually(lambda: names_in(namespace) == [], "all of it is gone")
