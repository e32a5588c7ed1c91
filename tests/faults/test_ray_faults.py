"""Calls between the actors that Ray loses, repeats or delays. Ray injects them itself; they need a Ray of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

_CALL = "CoreWorkerService.grpc_client.PushTask"
_WAVES, _WAVE = 10, 20


def run(folder: Path, **environment: str) -> dict[str, Any]:
    """Run a system with faults; return what became of its jobs."""
    sockets = tempfile.mkdtemp(prefix="aiq")  # short: the path of a socket has at most 107 bytes
    command = [sys.executable, "-m", "tests.faults.system_under_fault", str(folder), str(_WAVES)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"RAY_TMPDIR": sockets} | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-4_000:]
    starts = done.stderr.count("start: ") + 1
    if "RAY_testing_rpc_failure" in environment:
        assert "RpcFailureManager" in done.stderr, "Ray took no notice of the faults that were asked for"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    jobs = found["jobs"].values()
    print(
        f"{starts} starts, {len(jobs)} jobs, {sum(attempt - 1 for _, attempt, _ in jobs)} attempts more, "
        f"{sum(calls - 1 for _, _, calls in jobs)} calls more; {environment}"
    )
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_calls_that_ray_loses_lose_no_job_and_repeat_no_attempt(tmp_path: Path) -> None:
    odds = {"num_failures": 200, "req_failure_prob": 10, "resp_failure_prob": 20, "in_flight_failure_prob": 10}
    found = run(tmp_path, RAY_testing_rpc_failure=json.dumps({_CALL: odds}))
    for text, (status, attempt, calls) in found["jobs"].items():
        assert status == "completed", text
        assert calls <= attempt, f"{text}: more calls to the provider than attempts"
    assert found["stats"] == [_WAVES * _WAVE, _WAVES * _WAVE, 0, 0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_calls_that_ray_delays_cost_no_lease_and_repeat_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, RAY_testing_asio_delay_us="CoreWorkerService.grpc_server.PushTask=1000:200000")
    assert set(map(tuple, found["jobs"].values())) == {("completed", 1, 1)}
    assert found["stats"] == [_WAVES * _WAVE, _WAVES * _WAVE, 0, 0]
