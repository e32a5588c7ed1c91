"""Ray's own autoscaler, for real, with nodes that are raylets on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.autoscaled_ray import autoscaled_ray

_NODES = {
    "cpu_worker": {"resources": {"CPU": 1}, "max_workers": 2},
    "gpu_worker": {"resources": {"GPU": 1}, "max_workers": 1},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nodes_and_workers_come_with_a_burst_and_go_with_its_end_and_no_job_is_lost_with_a_node(tmp_path: Path) -> None:
    with autoscaled_ray(_NODES) as environment:
        driver = subprocess.run(
            [sys.executable, "-m", "tests.tools.autoscaled_driver", str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=380,
            check=False,
        )
    assert driver.returncode == 0, driver.stderr[-12_000:]
    facts = json.loads(driver.stdout.splitlines()[-1])
    print(json.dumps(facts, indent=1))

    burst, killed, drained = facts["burst"], facts["killed"], facts["drained"]
    for scene, jobs in ((burst, 120), (killed, 160), (drained, 60)):
        assert (scene["statuses"], scene["jobs"], scene["answers_right"]) == (["completed"], jobs, True)
    assert (burst["lost"], burst["other"]) == ([], []), "a worker was stopped while it was busy"
    assert burst["most_nodes"] == {"CPU": 2, "GPU": 1}
    assert burst["gpus"] == ["0"]
    assert killed["lost"], "the jobs that ran on the killed node"
    assert all(killed["reason"] in message or "process died" in message for message in killed["lost"])
    assert (drained["lost"], set(drained["other"]) <= {"handed_back"}) == ([], True)
    assert facts["room"] == {"workers": 0}, "a node that was kept ready for a worker came before it, and went again"
    told = {(name, data["pool"]) for name, data in facts["events"]}
    assert {(what, pool) for what in ("scaled-up", "scaled-down") for pool in ("cpu", "gpu")} <= told
    assert {("worker-unhealthy", "cpu"), ("worker-replaced", "cpu")} <= told
