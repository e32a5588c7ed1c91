"""Minutes of mixed load under random faults: what is lost, and what grows. Runs only when it is named.

In the first half the queue and the workers are killed and suspended at random; in the second half only workers are, so
that the queue's process lives long enough for its memory to be watched.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util import list_named_actors

from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.launch import System
from aiqueue.levels import AIJobPriority
from benchmarks.harness import PAYLOAD, POOL, Figure, system

_HALF_S = 150.0
_ROUND = 200  # jobs submitted together, of which one is cancelled
_PAUSE_S = 0.2
_WARM, _WATCHED = 50_000, 25_000  # jobs of the second half: until the caches are full, and at least from then on
_SUSPENDED_S = 3.0
_WORKERS = [f"aiqueue-worker-{POOL}-{number}" for number in range(2)]


def run() -> Iterator[Figure]:
    """Yield the figures."""
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    yield Figure(name="soak, seed", value=seed, unit="")
    with system(workers=len(_WORKERS), slots=32) as running:
        actors = len(list_named_actors(all_namespaces=True))
        first, faults = _half(running, draw, [QUEUE_ACTOR_NAME, *_WORKERS])
        queue = psutil.Process(_pid(running, QUEUE_ACTOR_NAME))
        second, more = _half(running, draw, _WORKERS, watched=queue)
        ended = first.states + second.states
        stats = running.adapter.get_stats()
        yield Figure(name="soak, faults", value=faults + more, unit="kills and suspensions")
        yield Figure(name="soak, jobs", value=ended.total(), unit="jobs")
        yield Figure(name="soak, jobs that did not end as they should", value=_wrong(ended), unit="jobs", floor="0")
        yield Figure(name="soak, jobs counted and not submitted", value=stats.total_jobs - ended.total(), unit="jobs")
        yield Figure(name="soak, leases left", value=stats.processing_jobs, unit="jobs", floor="0")
        grown = second.grown_bytes / 2**20 / max(1, second.watched_jobs) * 1_000
        yield Figure(name="soak, growth of the queue per 1,000 jobs", value=grown, unit="MB", floor="< 1")
        yield Figure(name="soak, growth of its open files", value=second.grown_files, unit="files", floor="0")
        left = len(list_named_actors(all_namespaces=True)) - actors
        yield Figure(name="soak, growth of the number of actors", value=left, unit="actors", floor="0")


class _Half:
    """What one half of the run saw."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.watched_jobs = self.grown_bytes = self.grown_files = 0


def _half(
    running: System, draw: random.Random, victims: list[str], *, watched: psutil.Process | None = None
) -> tuple[_Half, int]:
    half, over, faults = _Half(), threading.Event(), []
    seed = draw.randrange(2**32)
    saboteur = threading.Thread(target=_sabotage, args=(running, random.Random(seed), victims, over, faults))
    saboteur.start()
    began, before = time.monotonic(), None
    while time.monotonic() < began + _HALF_S or (watched is not None and half.watched_jobs < _WATCHED):
        level = draw.choice(list(AIJobPriority))
        payload = {**PAYLOAD, "provider": draw.choice(["instant", "five_ms"])}
        ids = running.adapter.submit_jobs([payload] * _ROUND, {"priority": level, "max_retries": 3})
        running.adapter.cancel_job(draw.choice(ids))
        half.states.update(info.status for info in running.adapter.wait_all(ids))
        time.sleep(_PAUSE_S)
        if watched is not None and half.states.total() >= _WARM:
            now = (half.states.total(), watched.memory_info().rss, watched.num_fds())
            before = before or now
            half.watched_jobs, half.grown_bytes, half.grown_files = (b - a for a, b in zip(before, now, strict=True))
    over.set()
    saboteur.join()
    return half, len(faults)


def _sabotage(
    running: System, draw: random.Random, victims: list[str], over: threading.Event, faults: list[str]
) -> None:
    while not over.wait(draw.uniform(3.0, 8.0)):
        victim = draw.choice(victims)
        with suppress(ProcessLookupError):  # it may just have been ended
            pid = _pid(running, victim)
            if victim != QUEUE_ACTOR_NAME and draw.random() < 0.5:
                os.kill(pid, signal.SIGSTOP)
                over.wait(_SUSPENDED_S)
                os.kill(pid, signal.SIGCONT)
            else:
                os.kill(pid, signal.SIGKILL)
            faults.append(victim)


def _pid(running: System, name: str) -> int:
    while True:
        try:
            actor = ray.get_actor(name, namespace=running.settings.namespace)
            return int(ray.get(actor.pid.remote(), timeout=10))
        except (RayActorError, GetTimeoutError, ValueError):
            time.sleep(0.1)


def _wrong(ended: Counter[str]) -> int:
    """Count jobs that are neither completed nor cancelled; a job in hand of three workers that died is given up."""
    return ended.total() - ended["completed"] - ended["cancelled"]
