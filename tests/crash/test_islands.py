"""Two systems of one user on one machine, each with a Ray of its own: whatever is killed, nothing crosses.

``AIQUEUE_ISLANDS_S`` is how long the killing goes on, ``AIQUEUE_ISLANDS_SEED`` which kills they are.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiqueue.ids import new_job_ids
from tests.tools.autoscaled_ray import processes_of
from tests.tools.pool_events import eventually
from tests.tools.running_up import RunningUp, running_up

_S = float(os.environ.get("AIQUEUE_ISLANDS_S", "20"))
_KINDS = ("ray::ServeReplica", "ray::ProxyActor", "ray::HAProxyManager", "haproxy")
_SETTINGS = """
namespace = "tests-{name}"
[providers.{name}]
kind = "simulated"
[pools.{name}]
providers = ["{name}"]
workers = 1
slots = 16
"""


class Client:
    """One that submits to a system, asks for what it has submitted, and reads the events of all jobs."""

    def __init__(self, name: str, url: str, mine: set[str]) -> None:
        self.acknowledged: list[str] = []
        self.told: Counter[int] = Counter()
        self.untrue: list[str] = []
        self.ended: set[str] = set()  #: jobs that the stream of events told of
        self._name, self._url, self._mine = name, url, mine
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._submit, self._read)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _submit(self) -> None:
        while not self._stopped.wait(0.02):
            (job_id,) = new_job_ids(1)
            self._mine.add(job_id)
            with suppress(httpx.TransportError), httpx.Client(timeout=15.0, trust_env=False) as client:
                body = {"payload": chat(self._name), "options": {"jobId": job_id}}
                if self._count(client.post(f"{self._url}/ai/jobs", json=body), 202):
                    self.acknowledged.append(job_id)
                if self.acknowledged:
                    self._count(client.get(f"{self._url}/ai/jobs/{random.choice(self.acknowledged)}"), 200)

    def _count(self, answer: httpx.Response, expected: int) -> bool:
        self.told[answer.status_code] += 1
        now = answer.status_code == expected
        if not now and not (answer.status_code == 503 and "retry-after" in answer.headers):
            self.untrue.append(f"{answer.request.method} {answer.status_code} {answer.text[:300]}")
        return now

    def _read(self) -> None:
        while not self._stopped.wait(0.1):
            with (
                suppress(httpx.TransportError),
                httpx.stream("GET", f"{self._url}/ai/events", timeout=2.0, trust_env=False) as stream,
            ):
                for line in stream.iter_lines():
                    if line.startswith("data: ") and '"jobId"' in line:
                        self.ended.add(json.loads(line[6:])["jobId"])
                    if self._stopped.is_set():
                        return


def chat(provider: str) -> dict[str, Any]:
    """A job's payload."""
    messages = [{"role": "user", "content": f"of {provider}"}]
    return {"type": "chat_completion", "provider": provider, "model": "m", "messages": messages}


def kill_something(up: RunningUp, draw: random.Random) -> str:
    """Kill one process of a system's front; return which."""
    kind = draw.choice(_KINDS)
    pids = processes_of(up.folder, kind)
    if pids:
        with suppress(ProcessLookupError):
            os.kill(draw.choice(pids), signal.SIGKILL)
    return kind if pids else f"no {kind}"


@pytest.mark.slow
@pytest.mark.timeout(240 + 4 * int(_S))
def test_of_two_systems_whose_fronts_are_killed_nothing_crosses(tmp_path: Path) -> None:
    seed = int(os.environ.get("AIQUEUE_ISLANDS_SEED", random.randrange(2**32)))
    draw, killed = random.Random(seed), Counter[str]()
    names, mine = ("a", "b"), {"a": set[str](), "b": set[str]()}
    options = {name: (f"--config={tmp_path / name}.toml", f"--journal={tmp_path / name}.db") for name in names}
    for name in names:
        (tmp_path / f"{name}.toml").write_text(_SETTINGS.format(name=name))
    with running_up(*options["a"]) as up_a:
        first = Client("a", up_a.url, mine["a"])  # while the other one starts beside it
        with running_up(*options["b"]) as up_b:
            second = Client("b", up_b.url, mine["b"])
            until = time.monotonic() + _S
            while time.monotonic() < until:
                killed[kill_something(draw.choice((up_a, up_b)), draw)] += 1
                threading.Event().wait(draw.uniform(0.2, 2.0))
            for client in (first, second):
                seen = len(client.acknowledged)
                eventually(lambda seen=seen, client=client: len(client.acknowledged) > seen + 20, "both serve", 90)
            second.stop()
            up_b.kill_everything()
        seen = len(first.acknowledged)
        eventually(lambda: len(first.acknowledged) > seen + 20, "the one that is left serves", 90)
        first.stop()
        print(f"seed {seed}: killed {dict(killed)}; a {dict(first.told)}, b {dict(second.told)}")
        assert not first.untrue + second.untrue, (seed, (first.untrue + second.untrue)[:5])
        for client, name in ((first, "a"), (second, "b")):
            assert client.acknowledged, name
            assert client.ended, f"{name} told of no job: the seed is {seed}"
            assert client.ended <= mine[name], f"events of another system came to {name}: the seed is {seed}"
        with httpx.Client(base_url=up_a.url, timeout=30.0, trust_env=False) as client:
            found = {client.get(f"/ai/jobs/{job_id}").status_code for job_id in first.acknowledged}
            assert found == {200}, f"an acknowledged job is not where it was sent: the seed is {seed}"
            strangers = {client.get(f"/ai/jobs/{job_id}").status_code for job_id in second.acknowledged[-50:]}
            assert strangers == {404}, f"a job went to the other system: the seed is {seed}"
