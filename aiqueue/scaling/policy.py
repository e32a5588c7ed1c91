"""From a pool's load to its size: by thresholds of the queue's depth, or by the time that is left for what waits."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from aiqueue.scaling.load import PoolLoad

PolicyName = Literal["threshold", "sla"]

_FIRST_GUESS_S = 1.0  # how long a job takes, before the first one has ended
_MEMORY_S = 10.0  # how far back durations look, roughly
_ROUND_S = 1.0  # over which arrivals are counted
_ROUNDS = 20  # how far back the steady load looks
_SURGES = 5  # of these rounds, the fullest, which are a burst and no steady load
_LEAST_LEFT = 0.25  # of an SLA: what is late already is worth haste, but not the whole cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRule:
    """How the size of one pool is found. Times in seconds."""

    policy: PolicyName = "threshold"
    auto_scale: bool = True  #: False: ``default_workers``, whatever waits
    min_workers: int = 1
    max_workers: int = 50
    default_workers: int = 10
    scale_up_threshold: int = 100  #: more jobs than that wait: ``scale_up_step`` workers more
    scale_down_threshold: int = 10  #: fewer than that: ``scale_down_step`` workers less
    scale_up_step: int = 2
    scale_down_step: int = 1
    up_cooldown_s: float = 1.0  #: between two steps up
    down_cooldown_s: float = 30.0  #: from the last change to a step down
    slots: int = 1  #: jobs one worker runs at once
    sla_s: tuple[float, ...] = (3.0, 10.0, 30.0, 60.0)  #: by level rank
    utilisation: float = 0.8  #: of the slots, that the ``sla`` policy aims at under a steady load


class Scaler(Protocol):
    """Looks at one pool again and again, and remembers what it needs."""

    def target(self, load: PoolLoad, size: int, *, now: float) -> int:
        """Return how many workers there should be, of which ``size`` are there or on their way."""
        ...


def scaler_for(rule: ScalingRule) -> Scaler:
    """Return what carries out ``rule``."""
    if not rule.auto_scale:
        return FixedScaler(rule)
    return SlaScaler(rule) if rule.policy == "sla" else ThresholdScaler(rule)


class FixedScaler:
    """Always ``default_workers``."""

    def __init__(self, rule: ScalingRule) -> None:
        self._size = rule.default_workers

    def target(self, load: PoolLoad, size: int, *, now: float) -> int:
        """See Scaler."""
        return self._size


class ThresholdScaler:
    """The specification's policy: steps, by how many jobs wait.

    Two things it leaves open: a pool without workers gets one for any job (below the threshold it would wait for ever),
    and no pool grows past what its jobs could fill (64 slots a worker: a step for 101 jobs may be one too many).
    """

    def __init__(self, rule: ScalingRule) -> None:
        self._rule = rule
        self._grown_at = -math.inf
        self._changed_at: float | None = None  # the first look counts as a change: a new manager knows no better
        self._shrinking: tuple[int, float] | None = None  # from which size, and when the last change before was

    def target(self, load: PoolLoad, size: int, *, now: float) -> int:
        """See Scaler."""
        rule, depth, target = self._rule, load.depth, size
        if self._changed_at is None:
            self._changed_at = now
        if self._shrinking and self._shrinking[0] == size:  # nobody was idle: nothing has changed
            self._changed_at = self._shrinking[1]
        self._shrinking = None
        if depth > rule.scale_up_threshold and now >= self._grown_at + rule.up_cooldown_s:
            target = max(size, min(size + rule.scale_up_step, useful(load, rule)))
        elif depth < rule.scale_down_threshold and now >= self._changed_at + rule.down_cooldown_s:
            target = size - rule.scale_down_step
        target = within(target, load, rule)
        if target > size:
            self._grown_at = now
        if target < size:
            self._shrinking = (size, self._changed_at)
        if target != size:
            self._changed_at = now
        return target


class SlaScaler:
    """As many workers as it takes for what waits to be done within its SLA, and for what keeps coming.

    Up at once to the need; down to the highest need of the last ``down_cooldown_s``, so that the next wave of an on/off
    load finds the workers of the last one.
    """

    def __init__(self, rule: ScalingRule) -> None:
        self._rule = rule
        self._pace = _Pace()
        self._needs: deque[tuple[float, int]] = deque()
        self._grown_at = -math.inf

    def target(self, load: PoolLoad, size: int, *, now: float) -> int:
        """See Scaler."""
        rule = self._rule
        self._pace.observe(load, now)
        need = self._need(load)
        # A new manager knows no better than its size.
        self._needs.append((now, need if self._needs else max(need, size)))
        while self._needs[0][0] < now - rule.down_cooldown_s:
            self._needs.popleft()
        if need > size and now < self._grown_at + rule.up_cooldown_s:
            return within(size, load, rule)
        target = within(need if need > size else min(size, max(need for _, need in self._needs)), load, rule)
        if target > size:
            self._grown_at = now
        return target

    def _need(self, load: PoolLoad) -> int:
        per_worker = self._rule.slots / self._pace.service_s
        steady = self._pace.arrivals_per_s / (per_worker * self._rule.utilisation)
        backlog = self._pressing_rate(load) / per_worker
        busy = load.running / self._rule.slots  # long jobs that come one by one are no rate that could be measured
        return max(math.ceil(steady - 1e-9), math.ceil(busy), min(math.ceil(backlog - 1e-9), useful(load, self._rule)))

    def _pressing_rate(self, load: PoolLoad) -> float:
        """Jobs per second that have to end so that none of those that wait misses its SLA.

        Each level as if all its jobs were as old as the oldest: after a burst they are, and under a steady load that
        comes to more than the load itself only when waits exceed half an SLA.
        """
        rate, ahead = 0.0, 0
        for queued, waited_s, sla_s in zip(load.queued, load.waited_s, self._rule.sla_s, strict=True):
            ahead += queued
            if queued:
                left_s = sla_s - waited_s - self._pace.service_s
                rate = max(rate, ahead / max(left_s, _LEAST_LEFT * sla_s))
        return rate


class _Pace:
    """How long jobs take, smoothed, and how fast they keep coming.

    A burst is no steady load: it waits, and what waits is counted as that. So are jobs that come back from a gate which
    opens. The rate is the mean of the last rounds without the fullest ones.
    """

    def __init__(self) -> None:
        self.service_s = _FIRST_GUESS_S
        self.arrivals_per_s = 0.0
        self._rounds: deque[float] = deque(maxlen=_ROUNDS)
        self._came = 0  # since the last round
        self._round_at = 0.0
        self._last: tuple[float, PoolLoad] | None = None
        self._measured = False

    def observe(self, load: PoolLoad, now: float) -> None:
        """Take the difference to the last look; a queue that restarted counts from zero again."""
        last, self._last = self._last, (now, load)
        if last is None or load.completed < last[1].completed:
            self._came, self._round_at = 0, now
            return
        if now <= last[0]:
            return
        weight = 1.0 - math.exp((last[0] - now) / _MEMORY_S)
        done = load.completed - last[1].completed
        if done:
            service_s = max(1e-3, (load.busy_s - last[1].busy_s) / done)
            self.service_s += (service_s - self.service_s) * (weight if self._measured else 1.0)
            self._measured = True
        self._came += done + load.depth + load.running - last[1].depth - last[1].running
        if now >= self._round_at + _ROUND_S - 1e-9:
            self._rounds.append(max(0.0, self._came / (now - self._round_at)))
            self._came, self._round_at = 0, now
            usual = sorted(self._rounds)[: max(0, len(self._rounds) - _SURGES)]
            self.arrivals_per_s = sum(usual) / max(1, len(usual))


def useful(load: PoolLoad, rule: ScalingRule) -> int:
    """Return how many workers the jobs there are could fill."""
    return math.ceil((load.depth + load.running) / rule.slots)


def within(target: int, load: PoolLoad, rule: ScalingRule) -> int:
    """Return ``target`` inside the pool's limits, and at least one worker if anything waits."""
    least = max(rule.min_workers, 1 if load.depth and rule.max_workers else 0)
    return max(least, min(target, rule.max_workers))
