"""Workers that can't get ready, and systems that are stopped while their manager is not there."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

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


@pytest.mark.slow
def test_jobs_wait_for_a_worker_that_can_not_fetch_its_model_yet(
    shared_ray: None, tiny_gguf: Path, tmp_path: Path
) -> None:
    checksum = hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
    settings = Settings(
        namespace="tests-no-network",
        providers={"local": {"kind": "llama_cpp", "models": ["m"], "context_tokens": 512}},
        models={
            "folder": tmp_path / "models",
            "hub_url": "http://127.0.0.1:9",
            "files": {"m": {"repo": "who/what", "file": "m.gguf", "sha256": checksum}},
        },
        pools={"local": {"providers": ["local"], "workers": 1}},
        journal={"path": tmp_path / "journal.db"},
    )
    with launch.start(settings, http=False) as system:
        events = PoolEvents(system)
        config = {"max_tokens": 4, "temperature": 0}
        ids = system.adapter.submit_jobs([{**chat("local", config=config), "model": "m"}] * 5, {"max_retries": 0})
        assert "can't be fetched from this node" in events.wait_for("worker-unhealthy")["reason"]
        infos = [system.adapter.get_job_status(job_id) for job_id in ids]
        assert [(info.status, info.attempt) for info in infos if info] == [("queued", 0)] * 5
        shutil.copy(tiny_gguf, tmp_path / "models" / f"{checksum[:16]}-m.gguf")
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
