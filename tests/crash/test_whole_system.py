"""The whole of `aiqueue up` ended while jobs come in: in order by SIGTERM, and at once by SIGKILL to every process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiqueue.ids import new_job_ids
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.tools.pool_events import eventually
from tests.tools.running_up import running_up

_ENDED = {"completed", "failed", "dead_letter", "cancelled", "expired"}
_CLIENTS = 4
_SETTINGS = """
namespace = "tests-up"
[providers.http]
kind = "openai"
base_url = "{url}"
gate = {{ breaker_failures = 10000, adaptive = false }}
[pools.http]
providers = ["http"]
workers = 2
slots = 8
"""


class Load:
    """Clients that submit jobs until they are told to stop, and know which were acknowledged."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.surprises: list[str] = []  #: answers that no client should get, whatever happens to the system
        self._url, self._stopped = url, threading.Event()
        self._threads = ThreadPoolExecutor(_CLIENTS)
        self._clients = [self._threads.submit(self._submit) for _ in range(_CLIENTS)]

    def stop(self) -> None:
        """End the clients; raise what went wrong with one."""
        self._stopped.set()
        for client in self._clients:
            client.result()
        self._threads.shutdown()

    def _submit(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10.0, trust_env=False) as client:
            while not self._stopped.wait(0.02):
                (job_id,) = new_job_ids(1)
                try:
                    answer = client.post("/ai/jobs", json=job(job_id))
                except httpx.HTTPError:
                    self.statuses[0] += 1  # nobody answered
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 202:
                    self.acknowledged.append(job_id)
                elif answer.status_code != 503:
                    self.surprises.append(f"{answer.status_code} {dict(answer.headers)} {answer.text[:1_000]}")


def job(job_id: str) -> dict[str, Any]:
    """A job whose text is its id."""
    messages = [{"role": "user", "content": job_id}]
    payload = {"type": "chat_completion", "provider": "http", "model": "sim:ok+latency=0.2", "messages": messages}
    return {"payload": payload, "options": {"jobId": job_id}}


def calls(provider: SimulatedServer) -> Counter[str]:
    """Calls that arrived, by job."""
    return Counter(str(request.body["messages"][0]["content"]) for request in list(provider.requests))


def look_up(url: str, ids: list[str]) -> list[dict[str, Any]]:
    """Return jobs as the system shows them. Fails for one that it does not know."""
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        answers = [client.get(f"/ai/jobs/{job_id}") for job_id in ids]
    assert {answer.status_code for answer in answers} <= {200}, "an acknowledged job is not there"
    return [answer.json() for answer in answers]


def ended(url: str, ids: list[str]) -> list[dict[str, Any]]:
    """Wait until jobs have ended; return them."""
    waiting = set(ids)

    def none_waits() -> bool:
        waiting.difference_update(found["jobId"] for found in look_up(url, list(waiting)) if found["status"] in _ENDED)
        return not waiting

    eventually(none_waits, "all acknowledged jobs have ended")
    return look_up(url, ids)


def ways_of(jobs: list[dict[str, Any]]) -> Counter[str]:
    """Count how earlier attempts ended."""
    return Counter(attempt["outcome"] for found in jobs for attempt in found.get("attempts") or [])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_system_ended_under_load_loses_nothing_and_repeats_nothing_that_had_ended(tmp_path: Path) -> None:
    config = tmp_path / "aiqueue.toml"
    options = (f"--config={config}", f"--journal={tmp_path / 'journal.db'}")
    with SimulatedServer() as provider:
        config.write_text(_SETTINGS.format(url=provider.openai_url))

        with running_up(*options) as up:
            load = Load(up.url)
            eventually(lambda: len(calls(provider)) > 60, "jobs run")
            began = time.monotonic()
            assert up.terminate() == 0
            took_s = time.monotonic() - began
            load.stop()
            eventually(lambda: not up.processes(), "no process is left", 30)
        first, told = load.acknowledged, dict(load.statuses)
        print(f"SIGTERM: {len(first)} jobs acknowledged, {took_s:.1f} s to its end, clients were told {told}")
        assert set(told) <= {0, 202, 503}, load.surprises
        after_first = calls(provider)

        with running_up(*options) as up:
            jobs = ended(up.url, first)
            assert {found["status"] for found in jobs} == {"completed"}
            assert set(ways_of(jobs)) <= {"handed_back"}, "a worker that was told to stop lost a job"
            made = calls(provider)
            assert all(made[found["jobId"]] <= found["attempt"] for found in jobs)
            print(f"{len(first) - len(after_first.keys() & set(first))} had yet to start, {dict(ways_of(jobs))}")

            load = Load(up.url)
            eventually(lambda: len(load.acknowledged) > 150, "jobs come in")
            before = {found["jobId"] for found in look_up(up.url, load.acknowledged[:60]) if found["status"] in _ENDED}
            killed = up.kill_everything()
            load.stop()
        second, before_kill = load.acknowledged, calls(provider)
        print(f"SIGKILL: {killed} processes, {len(second)} jobs acknowledged, {len(before)} were seen to end")
        assert before

        with running_up(*options) as up:
            jobs = ended(up.url, first + second)
            assert {found["status"] for found in jobs} == {"completed"}
            made = calls(provider)
            for found in jobs:
                assert 1 <= made[found["jobId"]] <= found["attempt"]
            again = {found["jobId"] for found in jobs if made[found["jobId"]] > before_kill[found["jobId"]] > 0}
            print(f"{len(again)} were under way and ran again, {dict(ways_of(jobs))}")
            assert not again & (before | set(first)), "what had ended ran again"
            assert up.terminate() == 0
