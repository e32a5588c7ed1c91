"""The metrics as Prometheus reads them, from the port that Ray opens on each node."""

from __future__ import annotations

import re
import threading
import time

import httpx
import pytest
import ray

from aiqueue import launch, metrics
from tests.running_system import chat

_PATIENCE_S = 40.0  # the queue tells every 5 s, and Ray's agent collects every 10


def scraped() -> str:
    """What this node's agent tells Prometheus."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        return httpx.get(address, trust_env=False, timeout=5.0).text
    except httpx.HTTPError:
        return ""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_prometheus_finds_every_metric_with_its_labels(own_system: launch.System) -> None:
    adapter = own_system.adapter
    adapter.wait_all(adapter.submit_jobs([chat("instant", str(number)) for number in range(20)]))
    deadline, text = time.monotonic() + _PATIENCE_S, ""
    while "aiqueue_ended_jobs_total{" not in text and time.monotonic() < deadline:
        threading.Event().wait(1.0)
        text = scraped()
    lines = [line for line in text.splitlines() if "aiqueue_" in line and not line.startswith("#")]
    for metric in (*metrics.GAUGES, metrics.ENDED):
        mine = [line for line in lines if re.match(rf"(ray_)?{metric.name}{{", line)]
        assert mine, metric.name
        for label in metric.labels:
            assert all(f'{label}="' in line for line in mine)
    done = [line for line in lines if "ended_jobs" in line and 'status="completed"' in line]
    assert sum(float(line.split()[-1]) for line in done) >= 20.0  # other systems of this Ray told theirs before
