"""A pool under a load, in steps of a twentieth of a second and without any real work: to compare scaling policies."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from aiqueue.scaling import PoolLoad, ScalingRule, scaler_for

_STEP_S = 0.05
_LOOK_S = 0.25  # how often the policy is asked, as by the pool manager

Shape = Callable[[int], float]  #: jobs per second that arrive in this second

#: Jobs per second over ten minutes. ``sla`` and ``threshold`` are compared on these.
SHAPES: Mapping[str, Shape] = {
    "steady": lambda second: 40.0,
    "burst": lambda second: 600.0 if 60 <= second < 65 else 4.0,
    "ramp": lambda second: second / 6.0 if second < 480 else 0.0,
    "on/off": lambda second: 80.0 if second // 60 % 2 else 2.0,
}
LEVEL_SHARES = (0.1, 0.2, 0.5, 0.2)  #: of the jobs, by level rank


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load cost. ``late``: jobs done after their level's SLA."""

    jobs: int
    late: int
    worker_seconds: float
    most_workers: int


@dataclass(slots=True)
class _Worker:
    ready_at: float
    busy: int = 0


class Simulation:
    """One pool. A worker takes ``start_s`` to come; only an idle one goes."""

    def __init__(self, rule: ScalingRule, *, service_s: float = 1.0, start_s: float = 3.0) -> None:
        self._rule, self._service_s, self._start_s = rule, service_s, start_s
        self._scaler = scaler_for(rule)
        self._workers = [_Worker(0.0) for _ in range(rule.default_workers)]
        self._waiting: list[deque[float]] = [deque() for _ in rule.sla_s]
        self._running: list[tuple[float, int, int, float, _Worker]] = []
        self._started = self._done = self._late = 0
        self._worker_seconds, self._most = 0.0, len(self._workers)

    def run(self, shape: Shape, *, seconds: int = 600) -> Outcome:
        """Let jobs arrive for ``seconds``, then until all have ended; return what became of them."""
        arrived, due, step = 0, 0.0, 0
        levels = _levels()
        per_look = round(_LOOK_S / _STEP_S)
        while step * _STEP_S < seconds or any(self._waiting) or self._running:
            now = step * _STEP_S
            due += shape(int(now)) * _STEP_S if now < seconds else 0.0
            while due >= 1.0:
                due -= 1.0
                self._waiting[next(levels)].append(now)
                arrived += 1
            self._end_jobs(now)
            if step % per_look == 0:
                self._scale(now)
            self._start_jobs(now)
            self._worker_seconds += len(self._workers) * _STEP_S
            step += 1
        return Outcome(arrived, self._late, self._worker_seconds, self._most)

    def _end_jobs(self, now: float) -> None:
        while self._running and self._running[0][0] <= now:
            _, _, level, arrived, worker = heapq.heappop(self._running)
            worker.busy -= 1
            self._done += 1
            self._late += now - arrived > self._rule.sla_s[level]

    def _start_jobs(self, now: float) -> None:
        for worker in self._workers:
            while worker.ready_at <= now and worker.busy < self._rule.slots and any(self._waiting):
                level = next(rank for rank, waiting in enumerate(self._waiting) if waiting)
                arrived = self._waiting[level].popleft()
                worker.busy += 1
                self._started += 1
                heapq.heappush(self._running, (now + self._service_s, self._started, level, arrived, worker))

    def _scale(self, now: float) -> None:
        load = PoolLoad(
            [len(waiting) for waiting in self._waiting],
            [now - waiting[0] if waiting else 0.0 for waiting in self._waiting],
            len(self._running),
            self._done,
            self._done * self._service_s,
        )
        target = self._scaler.target(load, len(self._workers), now=now)
        self._workers += [_Worker(now + self._start_s) for _ in range(target - len(self._workers))]
        spare = [worker for worker in reversed(self._workers) if not worker.busy][: max(0, len(self._workers) - target)]
        self._workers = [worker for worker in self._workers if not any(worker is gone for gone in spare)]
        self._most = max(self._most, len(self._workers))


def _levels() -> Iterator[int]:
    """Deal jobs to levels by their shares, evenly mixed, the same in every run."""
    credit = [0.0] * len(LEVEL_SHARES)
    while True:
        credit = [have + share for have, share in zip(credit, LEVEL_SHARES, strict=True)]
        level = credit.index(max(credit))
        credit[level] -= 1.0
        yield level
