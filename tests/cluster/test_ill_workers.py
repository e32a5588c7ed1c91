"""Workers whose loop stands still, or on which a job does not end at its limit: real processes, on one node."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.cluster.conftest import POOL, WORKER, Start, in_worker, lost_attempts, report_of, workers
from tests.running_system import chat
from tests.tools.pool_events import PoolEvents, eventually

_FIRST = f"{WORKER}0"


@pytest.mark.slow
def test_a_worker_whose_loop_stands_still_ends_its_jobs_and_is_replaced(start: Start) -> None:
    system = start(workers=1, max_loop_lag_ms=300, health_check_interval_ms=2_000, gc_between_jobs=True)
    events = PoolEvents(system)

    def collections(worker: Any) -> int:
        return int(gc.get_stats()[2]["collections"])

    before = in_worker(system, _FIRST, collections)
    system.adapter.wait_all(system.adapter.submit_jobs([chat("slow", str(n)) for n in range(4)]))
    assert in_worker(system, _FIRST, collections) > before, "garbage is collected between jobs"

    first = report_of(system, _FIRST)
    assert not events.seen, "a loop that turns is well"

    def stand_still(worker: Any) -> None:
        import time

        loop = worker._measuring.get_loop()

        def again_and_again() -> None:
            time.sleep(0.8)  # the very fault
            loop.call_later(0.2, again_and_again)

        loop.call_soon_threadsafe(again_and_again)

    in_worker(system, _FIRST, stand_still)
    ids = system.adapter.submit_jobs([chat("slow", str(n)) for n in range(60)])
    reason = events.wait_for("worker-unhealthy", worker_id=first.worker_id)["reason"]
    assert reason.startswith("event loop: stood still for ")
    replaced = events.wait_for("worker-replaced", worker_id=first.worker_id, reason=reason)
    infos = system.adapter.wait_all(ids)
    assert [info.status for info in infos] == ["completed"] * 60
    # A second attempt only of what was on its way to the worker when it was told to stop: that is handed back unrun.
    assert {info.attempt for info in infos} <= {1, 2}
    assert not any(lost_attempts(system, ids)), "it was let end what it ran"
    assert {info.worker_id for info in infos} == {first.worker_id, replaced["new_worker_id"]}
    eventually(lambda: workers(system) == [f"{WORKER}1"], "the slow worker is gone")


@pytest.mark.slow
def test_a_job_that_does_not_end_at_its_limit_is_ended_with_its_worker(start: Start) -> None:
    system = start(workers=1, max_execution_time_ms=2_000, overrun_ms=1_000)
    events = PoolEvents(system)
    first = report_of(system, _FIRST)

    def never_answer(worker: Any) -> None:
        import asyncio

        async def run(request: Any) -> None:
            while True:
                try:
                    await asyncio.sleep(3_600)
                except asyncio.CancelledError:
                    if "deaf" not in str(request.body):
                        raise

        worker._providers("slow").run = run

    in_worker(system, _FIRST, never_answer)
    timed_out, deaf = system.adapter.submit_jobs([chat("slow", "late"), chat("slow", "deaf")], {"max_retries": 0})
    (late,) = system.adapter.wait_all([timed_out])
    assert late.error
    assert late.error.message == "Job timeout: no answer from slow within 2 s", "the pool's limit, not the job's"
    assert not events.named("worker-unhealthy"), "a job that stops when it is told to is no illness"

    reason = events.wait_for("worker-unhealthy", worker_id=first.worker_id)["reason"]
    assert reason.startswith(f"execution time: job {deaf} runs ")
    replaced = events.wait_for("worker-replaced", worker_id=first.worker_id, reason=reason)
    (info,) = system.adapter.wait_all([deaf])
    assert (info.status, info.worker_id) == ("completed", replaced["new_worker_id"]), "it ran again, at no retry"
    (lost,) = lost_attempts(system, [deaf])
    assert reason in lost
    assert {data["pool"] for _, data in events.seen} == {POOL}
    eventually(lambda: workers(system) == [f"{WORKER}1"], "the hung worker is gone")
