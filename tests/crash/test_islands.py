"""Two systems of one user on one machine, each with a Ray of its own: whatever is killed, nothing crosses.

``AIQUEUE_ISLANDS_S`` is how long the killing goes on, ``AIQUEUE_ISLANDS_SEED`` which kills they are.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.tools.autoscaled_ray import processes_of
from tests.tools.island_client import IslandClient
from tests.tools.pool_events import eventually
from tests.tools.running_up import RunningUp, running_up

_S = float(os.environ.get("AIQUEUE_ISLANDS_S", "20"))
_KINDS = ("ray::ServeReplica", "ray::ProxyActor", "ray::HAProxyManager", "haproxy")
_SYSTEM_EVERY_S = 25.0  # a whole system is killed; the first one after half of a short run
_LIMIT_S = 60.0  # for an answer
_SETTINGS = """
namespace = "tests-{name}"
[providers.{name}]
kind = "simulated"
[pools.{name}]
providers = ["{name}"]
workers = 1
slots = 16
"""


class Island:
    """A system that comes back on its journal and its port, and its client."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        (folder / f"{name}.toml").write_text(_SETTINGS.format(name=name))
        self._options = [f"--config={folder / name}.toml", f"--journal={folder / name}.db"]
        self._running = running_up(*self._options)
        self.up: RunningUp = self._running.__enter__()
        self.client = IslandClient(name, self.up.url)
        self._options.append(f"--port={httpx.URL(self.up.url).port}")

    def kill_a_process(self, draw: random.Random) -> str:
        """Kill one process of its front; return which."""
        kind = draw.choice(_KINDS)
        pids = processes_of(self.up.folder, kind)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(draw.choice(pids), signal.SIGKILL)
        return kind if pids else f"no {kind}"

    def kill_and_start_again(self) -> str:
        """Kill the whole system, and start it again with the same settings, at the same address."""
        url = self.up.url
        self._end()
        self._running = running_up(*self._options)
        self.up = self._running.__enter__()
        assert self.up.url == url
        return "system"

    def serves(self) -> None:
        """Wait until it takes jobs and all of its listeners hear of new ones."""
        seen, heard = len(self.client.acknowledged), {way: len(jobs) for way, jobs in self.client.heard.items()}
        eventually(
            lambda: (
                len(self.client.acknowledged) > seen + 20
                and all(len(jobs) > heard[way] for way, jobs in self.client.heard.items())
            ),
            f"{self.name} serves, and its events come",
            90,
        )

    def statuses(self, jobs: set[str]) -> set[int]:
        """Return what it says of these jobs."""
        with httpx.Client(base_url=self.up.url, timeout=30.0, trust_env=False) as client:
            return {_status(client, job_id) for job_id in jobs}

    def close(self) -> None:
        """End it, and its client."""
        self.client.stop()
        self._end()

    def _end(self) -> None:
        self._running.__exit__(None, None, None)


@contextmanager
def island(name: str, folder: Path) -> Iterator[Island]:
    """Run one while the block lasts."""
    made = Island(name, folder)
    try:
        yield made
    finally:
        made.close()


def _status(client: httpx.Client, job_id: str) -> int:
    """Return what a system says of a job; ask again where it breaks the connection or says 503: it comes up again."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        try:
            response = client.get(f"/ai/jobs/{job_id}")
        except httpx.TransportError:
            continue
        if response.status_code != 503:
            return response.status_code
        threading.Event().wait(float(response.headers["retry-after"]))  # none is said without
    raise AssertionError(f"{job_id}: no answer in {_LIMIT_S:g} s")


def kill_for(seconds: float, islands: tuple[Island, ...], draw: random.Random) -> Counter[str]:
    """Kill parts of the systems, and now and then one of them whole; return what was killed."""
    killed = Counter[str]()
    began, system_at = time.monotonic(), min(seconds / 2, _SYSTEM_EVERY_S)
    while (now := time.monotonic() - began) < seconds:
        victim, other = draw.sample(islands, 2)
        if now < system_at:
            killed[victim.kill_a_process(draw)] += 1
        else:
            stopped = threading.Event()
            others = Counter[str]()
            harming = threading.Thread(target=harm, args=(other, draw, stopped, others))
            harming.start()  # the other one's front is killed at while this one comes up
            try:
                killed[victim.kill_and_start_again()] += 1
            finally:
                stopped.set()
                harming.join()
            killed.update(others)
            system_at = time.monotonic() - began + draw.uniform(0.2, 1.0) * _SYSTEM_EVERY_S
        threading.Event().wait(draw.uniform(0.2, 2.0))
    return killed


def harm(victim: Island, draw: random.Random, stopped: threading.Event, killed: Counter[str]) -> None:
    """Kill parts of a system until told to stop."""
    while not stopped.wait(draw.uniform(0.2, 2.0)):
        killed[victim.kill_a_process(draw)] += 1


@pytest.mark.slow
@pytest.mark.timeout(900 + 4 * int(_S))  # each start of a whole system may take a minute, and again
def test_of_two_systems_that_are_killed_in_parts_and_whole_nothing_crosses(tmp_path: Path) -> None:
    seed = int(os.environ.get("AIQUEUE_ISLANDS_SEED", random.randrange(2**32)))
    with island("a", tmp_path) as first, island("b", tmp_path) as second:
        both = (first, second)
        killed = kill_for(_S, both, random.Random(seed))
        for each in both:
            each.serves()
        for each in both:
            each.client.stop()
        print(f"seed {seed}: killed {dict(killed)}")
        for each, other in (both, both[::-1]):
            client = each.client
            heard = {way: len(jobs) for way, jobs in client.heard.items()}
            print(f"{each.name}: {len(client.acknowledged)} acknowledged, told {dict(client.told)}, heard of {heard}")
            assert not client.untrue, (seed, client.untrue[:5])
            assert not client.strangers(), (seed, each.name, "heard of another system's jobs")
            assert each.statuses(set(client.acknowledged)) == {200}, (seed, "an acknowledged job is not there")
            assert each.statuses(other.client.mine) == {404}, (seed, f"a job of {other.name} went to {each.name}")
        assert killed["system"], seed
