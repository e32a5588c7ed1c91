"""Hand ready jobs to parked workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiqueue.engine import Claim, QueueEngine
from aiqueue.service.clock import Clock
from aiqueue.service.commits import Committed
from aiqueue.service.parking import ParkedWorkers


class Waking:
    """Answers parked polls. ``step`` carries a claim out: it shares the commit of what made the job ready."""

    def __init__(
        self, engine: QueueEngine, parked: ParkedWorkers, step: Callable[[Claim], tuple[Any, Committed]], clock: Clock
    ) -> None:
        self._engine, self._parked, self._step, self._clock = engine, parked, step, clock

    def wake(self) -> None:
        """Give what is ready to workers that wait."""
        for pool in self._parked.pools():
            if self._engine.has_affinity(pool):
                self._wake_those_with_the_model(pool)
            waiting = self._waiting(pool)
            for at, worker_id in enumerate(waiting):
                share = _share(self._engine.ready(pool, now=self._clock.now()), len(waiting) - at)
                if share or self._engine.has_news_for(worker_id):
                    self._give(worker_id, share)

    def _wake_those_with_the_model(self, pool: str) -> None:
        """Give jobs to workers that have their model first: another one would have to load it."""
        for model, waiting in self._engine.by_model(self._waiting(pool)).items():
            for at, worker_id in enumerate(waiting):
                ready = self._engine.ready_alike(pool, model, now=self._clock.now())
                if share := _share(ready, len(waiting) - at):
                    self._give(worker_id, share)

    def _waiting(self, pool: str) -> list[str]:
        """Return who waits. Who has few slots goes first, so that the others take what it leaves."""
        return sorted(self._parked.of_pool(pool), key=self._engine.free_slots)

    def _give(self, worker_id: str, most: int) -> None:
        granted, committed = self._step(Claim(worker_id, most))
        if granted:
            self._parked.answer(worker_id, (granted, committed))


def _share(ready: int, workers: int) -> int:
    """Return an even share, rounded up."""
    return -(-ready // workers)
