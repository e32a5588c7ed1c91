"""A Ray cluster on hosts, with a system of aiqueue on it."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.tools.hosts.host import Host, Process

NAMESPACE = "on-hosts"
_PORT = 6379  # each host has all ports for itself
_OBJECTS = 80_000_000  # bytes, about the least that Ray takes
_START_S = 120.0
_TOO_BUSY = "The current node timed out during startup"  # of Ray, whose limit of 30 s can't be set
_CLIENT = ("-m", "tests.tools.hosts.client")


@dataclass(frozen=True, slots=True)
class Node:
    """What Ray is told of a host."""

    host: Host
    cpus: int = 0
    gpus: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)


class RayCluster:
    """The head is the first host's; the others join. ``environment`` is that of Ray and of drivers on all hosts.

    ``state`` are the head's own variables: where Ray keeps its state. By default it ends with the head.
    """

    def __init__(
        self, head: Host, environment: Mapping[str, str] | None = None, *, state: Mapping[str, str] | None = None
    ) -> None:
        self.head, self.address = head, f"{head.address}:{_PORT}"
        self._state = state or {}
        self._environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            **(environment or {}),
        }

    def start_head(self) -> Process:
        """Start the head, on which nothing else runs; return it when it is up."""
        options = ("--head", f"--port={_PORT}", "--include-dashboard=false")
        return self._start(Node(self.head), options, self._state)

    def join(self, *nodes: Node) -> list[Process]:
        """Let nodes join; return them when they have. Each ends when its raylet does, as under a supervisor."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # a raylet has 30 s to start, and four at once need longer
            return list(threads.map(lambda node: self._start(node, (f"--address={self.address}",), {}), nodes))

    def up(self, host: Host, settings: str, *options: str) -> Process:
        """Run `aiqueue up` on a host with these settings (TOML); return it when the system is up."""
        file = host.disk / "aiqueue.toml"
        file.write_text(f'namespace = "{NAMESPACE}"\njournal = {{ path = "{host.place}/journal.db" }}\n{settings}')
        config = f"--config={host.place / file.name}"
        up = self.run_on(host, "-m", "aiqueue", "up", "--no-http", config, *options)
        up.wait_for("aiqueue is up", _START_S)
        return up

    def client(self, host: Host, provider: str, jobs: int) -> Client:
        """Let a client on a host submit jobs and ask for them until they have ended."""
        return Client(self.run_on(host, *_CLIENT, NAMESPACE, provider, str(jobs)))

    def watch(self, host: Host, jobs: list[str]) -> Client:
        """Let a client on a host ask for jobs that another one has submitted, until they have ended."""
        file = host.disk / "jobs.json"
        file.write_text(json.dumps(jobs))
        return Client(self.run_on(host, *_CLIENT, NAMESPACE, str(host.place / file.name)))

    def run_on(self, host: Host, *words: str) -> Process:
        """Start a Python program on a host in the environment of a driver of this cluster."""
        return host.start("python", *words, env={**self._environment, "RAY_ADDRESS": self.address, "COLUMNS": "200"})

    def _start(self, node: Node, options: Iterable[str], more: Mapping[str, str]) -> Process:
        has = (f"--num-cpus={node.cpus}", f"--num-gpus={node.gpus}", f"--resources={json.dumps(dict(node.resources))}")
        here = (f"--node-ip-address={node.host.address}", f"--object-store-memory={_OBJECTS}", "--block")
        while True:
            started = node.host.start("ray", "start", *here, *has, *options, env={**self._environment, **more})
            try:
                started.wait_for("Ray runtime started", _START_S)
            except AssertionError:
                if _TOO_BUSY not in started.said():
                    raise
            else:
                return started


def in_redis(address: str) -> dict[str, str]:
    """Return the variables that keep Ray's state in a Redis."""
    return {"RAY_REDIS_ADDRESS": address}


def on_disk(head: Host) -> dict[str, str]:
    """Return the variables that keep Ray's state on the head's disk, as `cluster.yaml` does."""
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(head.place / "ray-state")}


class Client:
    """What a client on a host has said."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has learnt, in order; anything but JSON is Ray's."""
        return [json.loads(line) for line in self._process.said().splitlines() if line.startswith("{")]

    def accepted(self) -> list[str]:
        """Return the jobs that were acknowledged."""
        return [job for line in self.lines() for job in line.get("accepted", ())]

    def states(self) -> dict[str, int]:
        """Return how many jobs are in which state, as it was told last; ``unknown`` are those the queue has not."""
        return next((line["states"] for line in reversed(self.lines()) if "states" in line), {})

    def finish(self, limit_s: float) -> dict[str, int]:
        """Wait until all of its jobs have ended; return how many ended how."""
        status = self._process.wait(limit_s)
        assert status == 0, self._process.said()[-3_000:]
        return self.states()

    def stop(self) -> None:
        """End it."""
        self._process.end(signal.SIGKILL)
