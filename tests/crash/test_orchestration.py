"""``kill -9`` in the middle of a batch, a chain and a fan-in: all end right, and nothing that finished runs again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.errors import AggregationFailed, DependencyFailed, ValidationError
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator
from aiqueue.results import JobResult
from aiqueue.views import JobInfo
from tests.crash.test_kills import kill
from tests.running_system import chat

_ROWS = 5_000
_WORKER = "aiqueue-worker-fast-0"

# Begins to submit a batch and dies in the middle, by its own hand.
_DRIVER = """
import os, signal, sys
import ray
from aiqueue import launch
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator

def rows(die_at):
    for number in range(5_000):
        if number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"type": "chat_completion", "provider": "instant", "model": "m",
               "messages": [{"role": "user", "content": str(number)}]}

namespace, address, die_at = sys.argv[1:]
orchestrator = AIJobOrchestrator(launch.connect(namespace, address=address))
for done, result in enumerate(orchestrator.map(rows(int(die_at)), run_id="run")):
    if result.job.status != "completed":
        sys.exit(f"{result}")
    if done == 100 and die_at == "-1":
        os.kill(os.getpid(), signal.SIGKILL)
print(done + 1)
"""

# Submits a chain and a wide fan-in, and dies while it waits for what they come to.
_WAITING_DRIVER = """
import os, signal, sys, threading
from aiqueue import launch
from aiqueue.orchestrator.sync_orchestrator import AIJobOrchestrator

def chat(text):
    messages = [{"role": "user", "content": text}]
    return {"type": "chat_completion", "provider": "slow", "model": "m", "messages": messages}

namespace, address = sys.argv[1:]
orchestrator = AIJobOrchestrator(launch.connect(namespace, address=address))
chain = orchestrator.create_job_chain([chat("a"), chat("<{{previous.content}}>"), chat("{{steps[0]}}{{previous}}")])
_, wide = orchestrator.fan_out([chat(str(number)) for number in range(200)])
summary = orchestrator.fan_in_job(wide, chat("{{results}}"))
print(*chain, summary, *wide, flush=True)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
orchestrator.fan_in(wide, len)
"""


def killing(names: list[str], namespace: str, seed: int, ended: threading.Event) -> int:
    """Kill these actors again and again until ``ended``; return how often that was."""
    draw, kills = random.Random(seed), 0
    while kills < 4 and not ended.wait(draw.uniform(0.2, 0.6)):
        kill(names[kills % len(names)], namespace)
        kills += 1
    return kills


def run(program: Path, system: launch.System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that joins the system."""
    # The tests' own import path: the program must find what the tests found.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(program), system.settings.namespace, system.address, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)


def check_repeats(jobs: Iterable[JobInfo]) -> None:
    """Fail if a job ran again for another reason than that its worker was killed."""
    again = [job for job in jobs if job.attempt > 1]
    assert all(attempt.outcome == "lost" for job in again for attempt in job.attempts), "only lost work is done again"


@pytest.mark.slow
def test_a_batch_ends_right_whatever_is_killed_meanwhile(own_system: launch.System) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    orchestrator, ended = AIJobOrchestrator(own_system.adapter), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        kills = thread.submit(killing, [QUEUE_ACTOR_NAME, _WORKER], own_system.settings.namespace, seed, ended)
        rows = (chat("instant", str(number)) for number in range(_ROWS))
        batch_id = orchestrator.submit_batch_job(rows, max_concurrency=16)
        results = list(orchestrator.iter_results(batch_id))
        ended.set()
        assert kills.result() > 0
    assert [each.job.result.text for each in results if each.job.result] == [str(number) for number in range(_ROWS)]
    info = orchestrator.wait_batch(batch_id)
    assert (info.status, info.completed, info.total) == ("completed", _ROWS, _ROWS)
    check_repeats(each.job for each in results)


@pytest.mark.slow
def test_a_driver_that_dies_leaves_no_half_batch_and_what_finished_is_not_run_again(
    own_system: launch.System, tmp_path: Path
) -> None:
    program = tmp_path / "driver.py"
    program.write_text(_DRIVER)

    def drive(die_at: int) -> subprocess.CompletedProcess[str]:
        return run(program, own_system, str(die_at))

    assert drive(3_000).returncode == -signal.SIGKILL
    stats = own_system.adapter.get_stats()
    assert stats.completed_jobs == 0, "nothing of an unsealed batch may run"
    assert drive(-1).returncode == -signal.SIGKILL
    last = drive(_ROWS + 1)
    assert (last.returncode, last.stdout.strip()) == (0, str(_ROWS)), last.stderr
    stats = own_system.adapter.get_stats()
    assert stats.completed_jobs == _ROWS
    assert stats.blocked_jobs == 0


@pytest.mark.slow
def test_chains_keep_their_order_whatever_is_killed_meanwhile(own_system: launch.System) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    orchestrator, ended = AIJobOrchestrator(own_system.adapter), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        names = [QUEUE_ACTOR_NAME, "aiqueue-worker-slow-0"]
        kills = thread.submit(killing, names, own_system.settings.namespace, seed, ended)
        steps = [
            chat("slow", "a"),
            chat("slow", "<{{previous.content}}>"),
            chat("slow", "{{steps[0].content}}{{previous.content}}"),
        ]
        chains = [orchestrator.create_job_chain(steps) for _ in range(12)]
        infos = [own_system.adapter.wait_all(chain) for chain in chains]
        ended.set()
        assert kills.result() > 0
    for chain in infos:
        assert [info.result.text for info in chain if info.result] == ["a", "<a>", "a<a>"]
        assert all(before.finished_at <= after.started_at for before, after in pairwise(chain))
        check_repeats(chain)


@pytest.mark.slow
def test_a_fan_in_ends_right_whatever_is_killed_meanwhile(own_system: launch.System) -> None:
    orchestrator, ended = AIJobOrchestrator(own_system.adapter), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        names = [QUEUE_ACTOR_NAME, "aiqueue-worker-slow-0"]
        kills = thread.submit(killing, names, own_system.settings.namespace, 1, ended)
        _, job_ids = orchestrator.fan_out([chat("slow", str(number)) for number in range(200)])
        summary = orchestrator.fan_in_job(job_ids, chat("instant", "{{results}}"))
        texts: Any = orchestrator.fan_in(job_ids, lambda results: [result.text for result in results])
        ended.set()
        assert kills.result() > 0
    assert texts == [str(number) for number in range(200)]
    check_repeats(own_system.adapter.wait_all(job_ids))
    info = own_system.adapter.wait(summary)
    assert info.result is not None
    assert info.result.text == "\n\n".join(texts)[-200:], "the provider answers with the end of its prompt"


@pytest.mark.slow
def test_a_chain_and_a_fan_in_go_on_without_their_driver(own_system: launch.System, tmp_path: Path) -> None:
    program = tmp_path / "driver.py"
    program.write_text(_WAITING_DRIVER)
    died = run(program, own_system)
    assert died.returncode == -signal.SIGKILL, died.stderr
    ids = died.stdout.split()
    assert own_system.adapter.get_stats().completed_jobs < len(ids), "it died in the middle"
    infos = own_system.adapter.wait_all(ids)
    texts = [info.result.text for info in infos if info.result]
    numbers = [str(number) for number in range(200)]
    assert texts == ["a", "<a>", "a<a>", "\n\n".join(numbers)[-200:], *numbers]
    assert {info.attempt for info in infos} == {1}, "nothing runs again"
    assert AIJobOrchestrator(own_system.adapter).fan_in(ids[4:], len, timeout=100) == 200


@pytest.mark.slow
def test_a_fan_in_that_is_given_up_stops_its_task(own_system: launch.System) -> None:
    orchestrator = AIJobOrchestrator(own_system.adapter)
    _, job_ids = orchestrator.fan_out([chat("instant", "one")])
    assert orchestrator.fan_in(job_ids, len, timeout=60) == 1
    for _ in range(4):  # as many as there are CPUs for
        with pytest.raises(TimeoutError):
            orchestrator.fan_in(job_ids, lambda results: time.sleep(600), timeout=2)
    assert orchestrator.fan_in(job_ids, len, timeout=60) == 1


def test_many_refs_of_jobs_that_run_cost_one_process_and_hold_their_results(own_system: launch.System) -> None:
    orchestrator = AIJobOrchestrator(own_system.adapter)
    _, job_ids = orchestrator.fan_out([chat("slow", str(number)) for number in range(200)])
    before = psutil.Process().children(recursive=True)
    refs = [orchestrator.result_ref(job_id) for job_id in job_ids]
    texts = [result.text for result in ray.get(refs, timeout=100)]
    assert texts == [str(number) for number in range(200)]
    now = [process for process in psutil.Process().children(recursive=True) if process not in before]
    assert len(now) < 20, "Ray may start some ahead; a process for each ref it may not"


def test_results_are_rays_and_errors_have_their_traceback(own_system: launch.System) -> None:
    orchestrator = AIJobOrchestrator(own_system.adapter)
    _, job_ids = orchestrator.fan_out([chat("instant", "one"), chat("instant", "two")])

    @ray.remote
    def shout(result: JobResult) -> str:
        return result.text.upper()

    assert ray.get(shout.remote(orchestrator.result_ref(job_ids[0]))) == "ONE"
    assert orchestrator.fan_in(job_ids, len, timeout=60) == 2

    def broken(results: list[JobResult]) -> None:
        raise LookupError(f"nothing in {len(results)} results")

    with pytest.raises(AggregationFailed, match=r"(?s)Traceback.*in broken.*LookupError: nothing in 2 results"):
        orchestrator.fan_in(job_ids, broken)
    with pytest.raises(AggregationFailed, match=r"(?s)Traceback.*SystemExit: 3"):
        orchestrator.fan_in(job_ids, lambda results: sys.exit(3))
    with pytest.raises(AggregationFailed, match=r"(?s)returned can't be sent back.*cannot pickle"):
        orchestrator.fan_in(job_ids, lambda results: threading.Lock())
    with pytest.raises(ValidationError, match="fn: can't be sent to the cluster"):
        orchestrator.fan_in(job_ids, threading.Lock().__enter__)
    bad = own_system.adapter.submit_job({**chat("slow", "x"), "model": "m"})
    own_system.adapter.cancel_job(bad)
    with pytest.raises(DependencyFailed, match=f"job {bad} ended as cancelled"):
        orchestrator.fan_in([*job_ids, bad], len)
    assert orchestrator.fan_in([*job_ids, bad], len, on_error="skip") == 2
    kinds = orchestrator.fan_in(
        [*job_ids, bad], lambda found: [type(each).__name__ for each in found], on_error="include"
    )
    assert kinds == ["JobResult", "JobResult", "JobCancelled"]
    waiting = own_system.adapter.submit_job(chat("slow", "late"), {"delay": 60_000})
    with pytest.raises(TimeoutError):
        orchestrator.fan_in([waiting], len, timeout=0.2)


def test_a_result_whose_owner_died_is_read_from_the_journal(own_system: launch.System) -> None:
    orchestrator, namespace = AIJobOrchestrator(own_system.adapter), own_system.settings.namespace
    job_id = own_system.adapter.submit_job(chat("instant", "kept"))

    @ray.remote
    class Owner:
        def ref(self) -> list[Any]:
            from aiqueue.orchestrator.ray_tasks import result_ref

            return [result_ref(namespace, job_id)]

    owner = Owner.remote()
    (ref,) = ray.get(owner.ref.remote())
    assert ray.get(ref).text == "kept"
    ray.kill(owner)
    assert ray.get(orchestrator.result_ref(job_id)).text == "kept"
