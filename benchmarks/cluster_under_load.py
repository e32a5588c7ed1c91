"""Hosts with a Ray cluster, a system on it and jobs that run: what the recovery scenarios break."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tests.tools.hosts import Host, hosts
from tests.tools.hosts.host import Process
from tests.tools.hosts.provider import Call, CountingProvider, counting_provider
from tests.tools.hosts.ray_cluster import Client, Node, RayCluster, in_redis, on_disk

HEAD, QUEUE, ONE, OTHER, SPARE = range(5)  #: the hosts: the spare one has a GPU in name, or Redis
WORKERS, SLOTS = 3, 4
# By default a raylet ends when the head was away for 60 s. KubeRay sets this too where the state is in Redis.
_PATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
_LIMIT_S = 180.0
_JUST_S = 0.2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of a scenario came to."""

    seconds: float | None  #: from the fault until it works again; None: not within the time that the scenario waits
    lost: int  #: accepted jobs that the queue does not know, or that ended otherwise than completed
    repeated: int  #: calls beyond the first one of each job
    note: str = ""


@dataclass(slots=True)
class Scene:
    """A cluster whose workers are busy. ``nodes`` says what each host is to Ray."""

    hosts: list[Host]
    provider: CountingProvider
    cluster: RayCluster
    nodes: dict[int, Node]
    raylets: dict[int, Process]  #: `ray start --block`, which ends with its raylet
    up_again: Callable[[], object]
    client: Client
    accepted: list[str] = field(default_factory=list)

    def running_on(self, number: int) -> set[str]:
        """Return the jobs whose calls a host waits for."""
        return self.provider.in_flight(self.hosts[number].address)

    def wait_until_busy(self, number: int) -> None:
        """Wait until a host has just begun a call, so that calls are in flight in the next moment too."""
        assert wait_for(lambda: self.called_by(number, time.monotonic() - _JUST_S) or None, _LIMIT_S), "it runs no job"

    def rejoin(self, *numbers: int) -> None:
        """Let hosts join again as what they were."""
        joined = self.cluster.join(*(self.nodes[number] for number in numbers))
        self.raylets |= dict(zip(numbers, joined, strict=True))

    def called_by(self, number: int, moment: float) -> bool:
        """Return True if a host began a call after ``moment``."""
        return any(c.began > moment and c.caller == self.hosts[number].address for c in self.provider.calls())

    def call_after(self, moment: float, caller: int | None = None, *, limit_s: float = _LIMIT_S) -> float | None:
        """Wait for the first call that began after ``moment``, by that host if one is given; return its time."""

        def found() -> Call | None:
            wanted = None if caller is None else self.hosts[caller].address
            calls = (call for call in self.provider.calls() if call.began > moment)
            return next((call for call in calls if wanted in (None, call.caller)), None)

        call = wait_for(found, limit_s)
        return call.began if call else None

    def called_again(self, jobs: Set[str], moment: float) -> float | None:
        """Wait until each of these jobs was called again after ``moment``; return the time of the last of them."""

        def last() -> float | None:
            again: dict[str, float] = {}
            for call in self.provider.calls():
                if call.job in jobs and call.began > moment:
                    again.setdefault(call.job, call.began)
            return max(again.values(), default=moment) if again.keys() == jobs else None

        return wait_for(last, _LIMIT_S)

    def outcome(self, seconds: float | None, note: str = "", *, finishes: bool = True) -> Outcome:
        """Wait until all jobs have ended, if they ever will, and count."""
        states = self.client.finish(2 * _LIMIT_S) if finishes else self.client.states()
        waiting = sum(states.get(state, 0) for state in ("queued", "scheduled", "processing"))
        lost = len(self.accepted) - states.get("completed", 0) - waiting
        counts = self.provider.counts()
        return Outcome(seconds, lost, sum(counts[job] - 1 for job in self.accepted if job in counts), note)


@contextmanager
def scene(
    jobs: int,
    *,
    latency_s: float = 1.0,
    provider: str = "outside",
    gpu: bool = False,
    state: str = "",
    at: int = HEAD,
) -> Iterator[Scene]:
    """Yield a cluster that has accepted all jobs and completed some. `up` and the client run on host ``at``.

    ``state``: where Ray keeps its own, "redis" or "disk"; by default it ends with the head.
    """
    with hosts(5) as (made, network), counting_provider(network.address, latency_s=latency_s) as counting:
        cluster = RayCluster(made[HEAD], _PATIENT if state else {}, state=_kept(state, made))
        nodes = {QUEUE: Node(made[QUEUE], resources={"aiqueue_journal": 1})}
        nodes |= {number: Node(made[number], cpus=2) for number in (ONE, OTHER)}
        settings = counting.settings("outside", workers=WORKERS, slots=SLOTS, num_cpus=1)
        if gpu:
            nodes[SPARE] = Node(made[SPARE], gpus=1)
            settings += counting.settings("gpu", workers=1, slots=SLOTS, num_gpus=1)
        cluster.start_head()
        raylets = dict(zip(nodes, cluster.join(*nodes.values()), strict=True))
        up = partial(cluster.up, made[at], settings)
        up()
        client = cluster.client(made[at], provider, jobs)
        running = Scene(made, counting, cluster, nodes, raylets, up, client)
        assert wait_for(lambda: client.states().get("completed", 0) >= 2 * SLOTS, _LIMIT_S), "no job completes"
        running.accepted = client.accepted()
        assert len(running.accepted) == jobs
        yield running


def wait_for(ask: Callable[[], _T | None], limit_s: float) -> _T | None:
    """Ask until there is an answer, and return it; None if there was none in time."""
    give_up_at = time.monotonic() + limit_s
    while not (found := ask()) and time.monotonic() < give_up_at:
        threading.Event().wait(0.05)
    return found


def _kept(state: str, made: list[Host]) -> dict[str, str]:
    if state == "redis":
        return in_redis(_redis_on(made[SPARE]))
    return on_disk(made[HEAD]) if state else {}


def _redis_on(host: Host) -> str:
    started: Process = host.start("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")
    started.wait_for("Ready to accept connections")
    return f"{host.address}:6379"
