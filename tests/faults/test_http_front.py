"""The processes in front of the queue are killed, and clients are kept busy by others who never end their requests."""

from __future__ import annotations

import json
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import ray

from aiqueue import launch, protocol
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from tests.running_system import chat
from tests.tools.pool_events import eventually

_JOBS, _SOCKETS = 60, 200


def processes(title: str) -> list[psutil.Process]:
    """The processes of this test run's Ray whose title begins so."""
    raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    return [each for each in psutil.Process(raylet).children(recursive=True) if title in title_of(each)]


def title_of(process: psutil.Process) -> str:
    """The first word of a command line; empty for a process that has ended."""
    with suppress(psutil.Error):
        return next(iter(process.cmdline()), "")
    return ""


def submit_until_accepted(client: httpx.Client, key: str, payload: dict[str, Any]) -> tuple[str, int]:
    """Send a submit until it is acknowledged, as clients with a key do; return the job and how often it was sent."""
    for tries in range(1, 600):
        try:
            answer = client.post("/ai/jobs", json={"payload": payload}, headers={"Idempotency-Key": key})
        except httpx.HTTPError:
            answer = None
        if answer is not None and answer.status_code == 202:
            return str(answer.json()["jobId"]), tries
        assert answer is None or is_not_now(answer), answer.text
        threading.Event().wait(0.1)
    raise AssertionError(f"{key} was never accepted")


def is_not_now(answer: httpx.Response) -> bool:
    """Tell whether the server says that it can't answer just now, in the one way in which it may."""
    problem = answer.headers["content-type"] == "application/problem+json" and answer.json()["retryable"]
    return answer.status_code == 503 and "retry-after" in answer.headers and problem


def ends_after(base_url: str, after: int, until: int | None = None) -> list[tuple[int, str]]:
    """Read the ends of jobs behind an event, by number and job, up to an event or until the connection breaks."""
    found: list[tuple[int, str]] = []
    with (
        suppress(httpx.HTTPError),
        httpx.Client(base_url=base_url, timeout=30.0, trust_env=False) as client,
        client.stream("GET", "/ai/events", headers={"Last-Event-ID": str(after)}) as stream,
    ):
        number, name = 0, ""
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            number = int(value) if field == "id" else number
            name = value if field == "event" else name
            if field == "data" and name == "job:completed":
                found.append((number, json.loads(value)["jobId"]))
            if not line and until is not None and number >= until:
                break
    return found


def last_event(namespace: str) -> int:
    """The number of the newest event."""
    actor = ray.get_actor(QUEUE_ACTOR_NAME, namespace=namespace)
    return protocol.decode_welcome(ray.get(actor.hello.remote(), timeout=30)).last_event


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_killed_replica_repeats_no_job_of_a_client_with_a_key_and_its_stream_resumes(
    running_system: launch.System,
) -> None:
    seed = random.randrange(2**32)
    url, adapter = str(running_system.url), running_system.adapter
    before, began_at = adapter.get_stats(), last_event(running_system.settings.namespace)
    (replica,) = processes("ray::ServeReplica")
    kill_at = random.Random(seed).randrange(10, _JOBS - 20)
    with httpx.Client(base_url=url, timeout=5.0, trust_env=False) as client:
        log: list[tuple[int, str]] = []
        reader = threading.Thread(target=lambda: log.extend(ends_after(url, began_at)))
        reader.start()
        sent = []
        for number in range(_JOBS):
            if number == kill_at:
                replica.send_signal(signal.SIGKILL)
            sent.append(submit_until_accepted(client, f"{seed}-{number}", chat("instant", f"{seed} {number}")))
    reader.join(60)
    ids = [job_id for job_id, _ in sent]
    infos = adapter.wait_all(ids)
    again = sum(tries - 1 for _, tries in sent)
    print(f"seed {seed}: {_JOBS} jobs, {again} sent again, the broken stream had {len(log)} of their ends")
    assert not reader.is_alive(), "the stream of a killed replica goes on"
    assert len(set(ids)) == _JOBS
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}
    after = adapter.get_stats()
    assert after.total_jobs - before.total_jobs == _JOBS, "a submit that was sent again made a second job"
    newest = last_event(running_system.settings.namespace)
    log += ends_after(url, log[-1][0] if log else began_at, until=newest)
    assert Counter(job_id for _, job_id in log) == Counter(ids), "an end is missing from the stream, or came twice"
    assert [number for number, _ in log] == sorted({number for number, _ in log})


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_without_serves_controller_requests_are_answered_and_jobs_run(running_system: launch.System) -> None:
    adapter = running_system.adapter
    ray.kill(ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve"), no_restart=False)
    with httpx.Client(base_url=str(running_system.url), timeout=30.0, trust_env=False) as client:
        ids = [submit_until_accepted(client, f"c{number}", chat("instant", str(number)))[0] for number in range(40)]
    assert {info.status for info in adapter.wait_all(ids)} == {"completed"}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_behind_a_killed_proxy_jobs_run_and_another_one_answers(running_system: launch.System) -> None:
    adapter = running_system.adapter
    waiting = adapter.submit_jobs([chat("slow", str(number)) for number in range(40)])
    for name in ("haproxy", "its manager"):
        url = str(running_system.url)
        for victim in haproxies(url) if name == "haproxy" else processes("ray::HAProxyManager"):
            victim.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        with httpx.Client(base_url=str(running_system.url), timeout=30.0, trust_env=False) as client:
            job_id, tries = submit_until_accepted(client, f"after {name}", chat("instant", "after"))
        print(f"{name}: HTTP was back after {time.monotonic() - killed_at:.1f} s and {tries} tries")
        waiting.append(job_id)
    assert {(info.status, info.attempt) for info in adapter.wait_all(waiting)} == {("completed", 1)}


def haproxies(url: str) -> list[psutil.Process]:
    """The HAProxy processes that listen where a system serves."""
    port = urlsplit(url).port
    found = []
    for each in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if each.info["name"] == "haproxy" and any(on.laddr.port == port for on in each.net_connections("tcp")):
                found.append(each)
    return found


def found(name: str, url: str) -> list[psutil.Process]:
    """The processes of the front with this name."""
    return haproxies(url) if name == "haproxy" else processes(name)


class Watch:
    """A client that asks for what exists, on a new connection each time, and keeps what it was told."""

    def __init__(self, url: str, path: str) -> None:
        self.told: Counter[str] = Counter()
        self.untrue: list[str] = []
        self._url, self._stopped = url + path, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stopped.wait(0.01):
            try:
                answer = httpx.get(self._url, timeout=30.0, trust_env=False)
            except httpx.TransportError as error:
                self.told[type(error).__name__] += 1
                continue
            self.told[str(answer.status_code)] += 1
            if answer.status_code != 200 and not is_not_now(answer):
                self.untrue.append(f"{answer.status_code} {answer.headers} {answer.text[:300]}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whichever_process_of_the_front_is_killed_no_answer_is_untrue(running_system: launch.System) -> None:
    url = str(running_system.url)
    (job_id,) = running_system.adapter.submit_jobs([chat("instant", "watched")])
    for killed in (["haproxy"], ["ray::HAProxyManager"], ["ray::ServeReplica", "ray::ProxyActor"], ["ray::ServeCont"]):
        # Serve may just be replacing what was killed before.
        eventually(lambda killed=killed: all(found(name, url) for name in killed), f"{killed} run")
        victims = [each for name in killed for each in found(name, url)]
        watch = Watch(url, f"/ai/jobs/{job_id}")
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        try:
            eventually(
                lambda names=killed: all(name == "haproxy" or processes(name) for name in names), "it is back", 60
            )
            seen = watch.told["200"]
            eventually(lambda seen=seen, watch=watch: watch.told["200"] > seen + 50, "requests are answered", 60)
        finally:
            watch.stop()
        print(f"{killed}: {dict(watch.told)}")
        assert not watch.untrue, (killed, watch.untrue[:3])


@contextmanager
def dawdlers(url: str, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that send a byte a second: of their headers, or of a body that was announced."""
    address = urlsplit(url)
    body = json.dumps({"payload": chat()}).encode()
    head = "POST /ai/jobs HTTP/1.1\r\nHost: [::1]\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    sockets = [socket.create_connection((str(address.hostname), int(address.port or 0))) for _ in range(count)]
    for number, each in enumerate(sockets):
        each.sendall(head.encode() if number % 2 else head[:20].encode())
    stopped = threading.Event()

    def dawdle() -> None:
        at = 0
        while not stopped.wait(1.0):
            for number, each in enumerate(sockets):
                with suppress(OSError):  # it may have been closed on us
                    each.send(body[at : at + 1] if number % 2 else head[20 + at : 21 + at].encode())
            at += 1

    thread = threading.Thread(target=dawdle)
    thread.start()
    try:
        yield sockets
    finally:
        stopped.set()
        thread.join()
        for each in sockets:
            each.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_hundreds_of_clients_that_never_end_their_requests_leave_the_others_served(
    running_system: launch.System,
) -> None:
    url, adapter = str(running_system.url), running_system.adapter
    with dawdlers(url, _SOCKETS), httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
        answers = []
        for number in range(50):
            answers.append(client.post("/ai/jobs", json={"payload": chat("instant", str(number))}))
            threading.Event().wait(0.05)
        assert {answer.status_code for answer in answers} == {202}
        assert client.get("/ai/health").json()["status"] == "ok"
    infos = adapter.wait_all([answer.json()["jobId"] for answer in answers])
    assert {info.status for info in infos} == {"completed"}
