"""A job that wants more memory than its worker may have."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from tests.crash.test_kills import pid_of
from tests.running_system import chat

_WORKER = "aiqueue-worker-fast-0"
_ALLOWED, _WANTED = 256 * 2**20, 2 * 2**30  # bytes: beside what the worker has at the start; of one job


def give_limits(worker: Any) -> int:
    """Run in the worker: limit its memory, and let a job whose text is "hog" take all it wants. Returns the limit."""
    import resource
    from pathlib import Path

    class Hungry:
        """A provider that needs memory for some of its answers."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def run(self, request: Any) -> Any:
            if request.body["messages"][-1]["content"].startswith("hog"):
                return bytearray(_WANTED)
            return await self.inner.run(request)

        async def close(self) -> None:
            await self.inner.close()

    (data_kb,) = [
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:7] == "VmData:"
    ]
    limit = data_kb * 1024 + _ALLOWED
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    worker._providers._opened["instant"] = Hungry(worker._providers("instant"))
    return limit


@pytest.mark.timeout(120)
def test_a_job_that_wants_too_much_memory_fails_as_such_and_its_worker_and_all_others_go_on(
    own_system: launch.System,
) -> None:
    adapter, namespace = own_system.adapter, own_system.settings.namespace
    pids = [pid_of(name, namespace) for name in (_WORKER, QUEUE_ACTOR_NAME)]
    limit = ray.get(ray.get_actor(_WORKER, namespace=namespace).__ray_call__.remote(give_limits), timeout=60)
    texts = [f"hog {number}" if number % 10 == 5 else str(number) for number in range(100)]
    infos = adapter.wait_all(adapter.submit_jobs([chat("instant", text) for text in texts], {"max_retries": 0}))
    failed = [info for info in infos if info.status != "completed"]
    print(f"limit {limit / 2**20:.0f} MB; {len(failed)} jobs wanted {_WANTED / 2**20:.0f} MB more")
    assert [text for text, info in zip(texts, infos, strict=True) if info in failed] == [
        text for text in texts if text.startswith("hog")
    ]
    assert {(info.status, info.error.kind if info.error else "") for info in failed} == {
        ("dead_letter", "out_of_memory")
    }
    assert [pid_of(name, namespace) for name in (_WORKER, QUEUE_ACTOR_NAME)] == pids
    assert adapter.get_stats().processing_jobs == 0
