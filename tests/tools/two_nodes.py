"""A Ray of two nodes on this machine, begun as an operator begins one, with the dashboard that `serve` talks to."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from ray._private.services import get_node_ip_address

from tests.tools.autoscaled_ray import free_port, kill_processes_of, ray_command, wait_for_port
from tests.tools.pool_events import eventually

LIMIT_S = 120.0
_ROOT = Path(__file__).parents[2]


class TwoNodes:
    """The cluster, and what an operator does on it. HTTP that Serve begins is at ``urls``, one for each node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._host, port, dashboard = get_node_ip_address(), free_port(), free_port()
        self.http_port, other_port = free_port(), free_port()
        self.urls = [f"http://127.0.0.1:{self.http_port}", f"http://127.0.0.1:{other_port}"]
        token = secrets.token_hex(32)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "RAY_TMPDIR": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": f"{self._host}:{port}",
            "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}",
        }
        self._dashboard = httpx.Client(
            base_url=self.environment["RAY_DASHBOARD_ADDRESS"],
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=LIMIT_S,
        )
        head = self._node(
            "head",
            *("--head", f"--port={port}", "--include-dashboard=true", f"--dashboard-port={dashboard}"),
            f"--ray-client-server-port={free_port()}",
        )
        wait_for_port(self._host, port, head, folder)
        self._node("worker", f"--address={self._host}:{port}", RAY_SERVE_WORKER_PROXY_HTTP_PORT=str(other_port))
        eventually(lambda: self._alive() == 2, "both nodes are there", LIMIT_S)

    def _node(self, name: str, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        """Begin a node with one CPU; its processes find this checkout."""
        apart = ("--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}")
        environment = {key: value for key, value in self.environment.items() if key != "RAY_ADDRESS"}
        return subprocess.Popen(
            [ray_command(), "start", "--block", "--num-cpus=1", *apart, *options],
            env={**environment, **variables, "PYTHONPATH": str(_ROOT)},
            cwd=self.folder,
            stdout=(self.folder / f"{name}.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _alive(self) -> int:
        with contextlib.suppress(httpx.TransportError):
            answer = self._dashboard.get("/nodes", params={"view": "summary"})
            if answer.is_success:
                return sum(each["raylet"].get("state") == "ALIVE" for each in answer.json()["data"]["summary"])
        return 0

    def serve(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of Serve's commands, from a folder and in an environment that have nothing to do with ours."""
        return self._command(str(Path(sys.executable).with_name("serve")), *words)

    def ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of Ray's commands, as one of Serve's."""
        return self._command(ray_command(), *words)

    def aiqueue(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of our commands."""
        return self._command(sys.executable, "-m", "aiqueue", *words, PYTHONPATH=str(_ROOT))

    def _command(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env={**self.environment, **variables},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    @contextmanager
    def begun(self, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command until the block's end. Its log is ``NAME.log``; it finds this checkout."""
        process = subprocess.Popen(
            [sys.executable, "-u", *words],
            env={**self.environment, "PYTHONPATH": str(_ROOT), "COLUMNS": "200"},
            cwd=self.folder,
            stdout=(self.folder / f"{name}.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LIMIT_S)
            process.kill()

    def log(self, name: str) -> str:
        """Return what a command has said so far."""
        return (self.folder / f"{name}.log").read_text()

    def applications(self) -> Mapping[str, Any]:
        """Return Serve's applications as its dashboard shows them."""
        answer = self._dashboard.get("/api/serve/applications/")
        answer.raise_for_status()
        found: Mapping[str, Any] = answer.json()["applications"]
        return found

    def close(self) -> None:
        """End every process of the cluster."""
        self._dashboard.close()
        kill_processes_of(str(self.folder))


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Begin the cluster; end every process of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="aiqn"))  # short: sockets lie below it
    nodes = None
    try:
        nodes = TwoNodes(folder)
        yield nodes
    finally:
        if nodes is not None:
            nodes.close()
        kill_processes_of(str(folder))
        shutil.rmtree(folder, ignore_errors=True)
