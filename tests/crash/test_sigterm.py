"""SIGTERM to a system whose clients are in the middle of something."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.tools.pool_events import eventually
from tests.tools.running_up import running_up

_JOB_S = 8  # longer than anything that is closed without regard to it
_SETTINGS = f"""
namespace = "tests-sigterm"
[providers.slow]
kind = "simulated"
latency_ms = {_JOB_S * 1_000}
[pools.slow]
providers = ["slow"]
workers = 1
"""
_END = "event: job:completed"
_CHAT = {"type": "chat_completion", "provider": "slow", "model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_jobs_stream_in_flight_comes_to_its_end_and_sockets_are_told_at_once(tmp_path: Path) -> None:
    config, lines = tmp_path / "aiqueue.toml", list[str]()
    config.write_text(_SETTINGS)
    with (
        running_up(f"--config={config}", f"--journal={tmp_path / 'journal.db'}") as up,
        httpx.Client(base_url=up.url, timeout=60.0, trust_env=False) as client,
    ):
        job_id = client.post("/ai/jobs", json={"payload": _CHAT}).json()["jobId"]

        def read() -> None:
            with client.stream("GET", f"/ai/jobs/{job_id}/events") as stream:
                for line in stream.iter_lines():
                    lines.append(line)

        reading = threading.Thread(target=read)
        reading.start()
        eventually(lambda: httpx.get(f"{up.url}/ai/jobs/{job_id}").json()["status"] == "processing", "it runs")
        ended = list[int]()
        with connect(f"{up.url.replace('http', 'ws')}/ai/ws", proxy=None) as socket:
            terminating = threading.Thread(target=lambda: ended.append(up.terminate()))
            terminating.start()
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(60)
            assert _END not in lines, "the socket was left alone while the job ran"
        reading.join(60)
        terminating.join(90)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert _END in lines
    assert ended == [0]
