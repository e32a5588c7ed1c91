"""A worker that is stopped for longer than its lease, and comes back when another one has done its work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.scaling.load import WorkerReport, decode_report
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.crash.test_rounds import calls, payload
from tests.tools.pool_events import eventually

_WORKERS = [f"aiqueue-worker-http-{number}" for number in range(2)]


@pytest.fixture
def provider() -> Iterator[SimulatedServer]:
    """A provider that answers after 50 ms."""
    with SimulatedServer() as server:
        yield server


@pytest.fixture
def system(shared_ray: None, provider: SimulatedServer, tmp_path: Path) -> Iterator[launch.System]:
    """A system whose leases last for ten seconds, and whose pool manager looks at its workers once a minute."""
    settings = Settings(
        namespace=f"tests-silent-{tmp_path.name}",
        providers={"http": {"kind": "openai", "base_url": provider.openai_url}},
        pools={"http": {"providers": ["http"], "workers": 2, "slots": 4, "health_check_interval_ms": 60_000}},
        journal={"path": tmp_path / "journal.db"},
        lease={"heartbeat_s": 1.0, "missed_heartbeats": 10},
    )
    with launch.start(settings, http=False) as running:
        yield running


def report_of(system: launch.System, name: str) -> WorkerReport:
    """What a worker says of itself."""
    actor = ray.get_actor(name, namespace=system.settings.namespace)
    return decode_report(ray.get(actor.report.remote(), timeout=30))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_that_slept_through_its_lease_reports_too_late_and_is_refused(
    system: launch.System, provider: SimulatedServer
) -> None:
    adapter = system.adapter
    both = [report_of(system, name) for name in _WORKERS]
    texts = [f"job {number}" for number in range(8)]
    # Under way at both workers, for longer than it takes to stop one of them.
    ids = adapter.submit_jobs([payload(text) | {"model": "sim:ok+latency=3"} for text in texts])
    eventually(lambda: len(provider.requests) == 8, "all are under way")
    asleep = next(report for report in both if report.worker_id == adapter.get_job_status(ids[0]).worker_id)  # type: ignore[union-attr]
    held = [job_id for job_id in ids if adapter.get_job_status(job_id).worker_id == asleep.worker_id]  # type: ignore[union-attr]
    os.kill(asleep.pid, signal.SIGSTOP)
    try:
        infos = adapter.wait_all(ids)
    finally:
        os.kill(asleep.pid, signal.SIGCONT)
    assert {info.status for info in infos} == {"completed"}
    taken_over = [info for info in infos if info.job_id in held]
    assert asleep.worker_id not in {info.worker_id for info in taken_over}
    lost = [(attempt.outcome, attempt.worker_id) for info in taken_over for attempt in info.attempts]
    assert lost == [("lost", asleep.worker_id)] * len(held)

    eventually(lambda: adapter.get_stats().stale_outcomes >= len(held), "it reports what it had done")
    stats = adapter.get_stats()
    print(f"{len(held)} jobs were taken over, {stats.stale_outcomes} late reports refused")
    assert stats.stale_outcomes == len(held)
    assert (stats.completed_jobs, stats.processing_jobs, stats.queued_jobs) == (len(ids), 0, 0)
    assert adapter.get_jobs(ids) == infos, "a late report changed what was final"
    made = calls(provider)
    assert [made[text] for text in texts] == [
        2 if job_id in held else 1 for text, job_id in zip(texts, ids, strict=True)
    ]
    again = adapter.wait_all(adapter.submit_jobs([payload(f"later {number}") for number in range(16)]))
    assert asleep.worker_id in {info.worker_id for info in again}, "the worker that woke works on"
