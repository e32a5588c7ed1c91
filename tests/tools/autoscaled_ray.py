"""A Ray head whose autoscaler starts real raylets on this machine as if they were nodes of a cloud."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._private.services import get_node_ip_address

_HEAD_ID = "f" * 51 + "00000"
_START_LIMIT_S = 90.0

_EMPTY = (  # what a cluster file must have, and a fake node does not do
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "head_start_ray_commands", "worker_start_ray_commands"),
)

NodeTypes = Mapping[str, Mapping[str, Any]]


@contextmanager
def autoscaled_ray(node_types: NodeTypes) -> Iterator[dict[str, str]]:
    """Yield the environment in which a driver joins the cluster; end every process of it afterwards.

    ``node_types``: resources and max_workers by name, as in a cluster file.
    """
    folder = Path(tempfile.mkdtemp(prefix="aiqa"))  # short: sockets lie below it
    port, address = free_port(), get_node_ip_address()
    environment = {
        **os.environ,
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    config = folder / "autoscaling.json"  # JSON is YAML
    config.write_text(json.dumps(_config(node_types, f"{address}:{port}")))
    options = ("--num-cpus=0", "--include-dashboard=false", f"--autoscaling-config={config}")
    head = subprocess.Popen(
        [ray_command(), "start", "--head", "--block", f"--port={port}", *options],
        env={**environment, **_head_environment()},
        stdout=(folder / "head.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for_port(address, port, head, folder)
        yield {**environment, "RAY_ADDRESS": f"{address}:{port}"}
    finally:
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(10)
        kill_processes_of(str(folder))
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(mark: str, name: str = "") -> list[int]:
    """Return the processes with ``mark`` in their environment, and ``name`` in their command line; never this one's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                environ, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
                if mark.encode() in environ and name.encode() in command:
                    found.append(int(entry.name))
    return found


def kill_processes_of(mark: str) -> None:
    """End the processes with ``mark`` in their environment."""
    for pid in processes_of(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _config(node_types: NodeTypes, gcs_address: str) -> dict[str, Any]:
    types = {
        name: {"node_config": {}, "min_workers": 0, **declared, "resources": dict(declared["resources"])}
        for name, declared in node_types.items()
    }
    empty: dict[str, list[str]] = {key: [] for key in _EMPTY}
    return {
        **empty,
        "cluster_name": "fake",
        "max_workers": sum(declared["max_workers"] for declared in node_types.values()),
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 10.0,
        "docker": {},
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
            "gcs_address": gcs_address,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "max_workers": 0, "node_config": {}},
            **types,
        },
        "head_node_type": "ray.head.default",
    }


def _head_environment() -> dict[str, str]:
    return {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
    }


def ray_command() -> str:
    """Return the path of Ray's command."""
    return str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    """Return a port that nothing has."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for_port(address: str, port: int, head: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when the head, whose log is in the folder, has started."""
    give_up_at = time.monotonic() + _START_LIMIT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0 and "Ray runtime started" in (folder / "head.log").read_text():
                return
        assert head.poll() is None, (folder / "head.log").read_text()
        assert time.monotonic() < give_up_at, (folder / "head.log").read_text()
        time.sleep(0.2)
