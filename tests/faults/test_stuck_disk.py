"""A disk under a running system that is slow, and one that hangs: each sync of the queue process takes so long."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from actors.options import POOL_MANAGER_NAME
from aiqueue import launch
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME, RayTransport
from aiqueue.http_config import HttpConfig
from serve.app import create_app
from tests.crash.test_kills import pid_of
from tests.faults.driver import strace
from tests.running_system import chat
from tests.tools.pool_events import eventually

_SYNCS = "fsync,fdatasync"
_DEADLINE_S = 0.5


def slow_syncs(pid: int, delay_s: float, log: Path) -> Any:
    """Let each sync of a process take so much longer while the block lasts."""
    delay = f"inject={_SYNCS}:delay_enter={round(delay_s * 1e6)}"
    return strace(pid, "-o", str(log), "-e", f"trace={_SYNCS}", "-e", delay)


@pytest.mark.timeout(120)
def test_a_submit_that_the_disk_keeps_too_long_is_told_so_and_sent_again_it_is_the_same_job(
    own_system: launch.System, tmp_path: Path
) -> None:
    namespace = own_system.settings.namespace
    app = create_app(lambda: AsyncAIQueueAdapter(RayTransport(namespace)), HttpConfig(), deadline_s=_DEADLINE_S)

    async def submit(client: httpx.AsyncClient, key: str) -> httpx.Response:
        body = {"payload": chat("instant", key)}
        return await client.post("/ai/jobs", json=body, headers={"Idempotency-Key": key})

    async def scene() -> tuple[list[httpx.Response], list[httpx.Response]]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        ):
            keys = [f"key-{number}" for number in range(20)]
            with slow_syncs(pid_of(QUEUE_ACTOR_NAME, namespace), 3 * _DEADLINE_S, tmp_path / "log"):
                late = await asyncio.gather(*(submit(http, key) for key in keys))
                assert (await http.get("/ai/stats")).status_code == 200  # what needs no disk is answered
            again = await asyncio.gather(*(submit(http, key) for key in keys))
            while any(answer.status_code == 503 for answer in again):  # until the disk has caught up
                again = await asyncio.gather(*(submit(http, key) for key in keys))
            return late, again

    late, again = asyncio.run(scene())
    print(f"{len(late)} submits, told {sorted({answer.status_code for answer in late})} while the disk was slow")
    assert {(answer.status_code, answer.json()["code"]) for answer in late} == {(503, "queue_unavailable")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in late)
    assert {answer.status_code for answer in again} == {202}
    infos = own_system.adapter.wait_all([answer.json()["jobId"] for answer in again])
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}
    assert own_system.adapter.get_stats().total_jobs == 20, "a submit that was sent again made a second job"


@contextmanager
def stuck_syncs(pid: int) -> Iterator[None]:
    """Let no sync of a process come to its end while the block lasts."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("needs strace: apt install strace")
    options = ("-e", f"trace={_SYNCS}", "-e", f"inject={_SYNCS}:delay_enter=600000000", "-o", "/dev/null")
    tracer = subprocess.Popen([program, "-f", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace can't trace processes here: {said.strip()}")
        yield
    finally:
        tracer.kill()  # it does not let go by itself of a process that was killed during its delay
        tracer.communicate()


def has_ended(pid: int) -> bool:
    """Tell whether a process is dead, if only its tracer has not noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def look_closely(manager: Any) -> None:
    """Run in the pool manager: its watchdog is to call a disk stuck after two seconds."""
    import actors.watchdog

    actors.watchdog._STUCK_S = 2.0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_queue_whose_commit_hangs_is_ended_and_its_successor_takes_the_submit(
    own_system: launch.System,
) -> None:
    adapter, namespace = own_system.adapter, own_system.settings.namespace
    ended = adapter.submit_jobs([chat("instant", str(number)) for number in range(20)])
    adapter.wait_all(ended)
    ray.get(ray.get_actor(POOL_MANAGER_NAME, namespace=namespace).__ray_call__.remote(look_closely), timeout=60)
    before = pid_of(QUEUE_ACTOR_NAME, namespace)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        with stuck_syncs(before):
            ids = thread.submit(adapter.submit_jobs, [chat("instant", f"stuck {number}") for number in range(20)])
            eventually(lambda: has_ended(before), "the watchdog ends the queue process", 60)
        infos = adapter.wait_all(ids.result())
    print(f"a commit that hung was over after {time.monotonic() - began:.1f} s")
    assert pid_of(QUEUE_ACTOR_NAME, namespace) != before
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}
    stats = adapter.get_stats()
    assert (stats.total_jobs, stats.completed_jobs) == (40, 40)
