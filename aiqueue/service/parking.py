"""Workers whose long poll waits for work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiqueue.engine.effects import Granted
from aiqueue.service.commits import Committed
from aiqueue.waiting import done_within

_DEAD_KEPT = 1_000
Grant = tuple[Granted, Committed]


class ParkedWorkers:
    """At most one poll per worker: a new one sends an older one home."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, asyncio.Future[Grant | None]]] = {}
        self._dead: dict[str, bool] = {}  #: the last of those that were seen to die

    def declare_dead(self, worker_id: str) -> None:
        """Send a worker's poll home that nobody will read. A last call of it may still be on its way."""
        self.send_home(worker_id)
        self._dead[worker_id] = True
        if len(self._dead) > _DEAD_KEPT:
            del self._dead[next(iter(self._dead))]

    def is_dead(self, worker_id: str) -> bool:
        """Tell whether somebody has seen the worker die: given a job, it would never report."""
        return worker_id in self._dead

    async def wait(self, worker_id: str, pool: str, timeout_s: float) -> Grant | None:
        """Wait for a grant; None when there was none in time, or a newer poll of this worker came."""
        future: asyncio.Future[Grant | None] = asyncio.get_running_loop().create_future()
        entry = self._waiting[worker_id] = (pool, future)
        try:
            return future.result() if await done_within(future, timeout_s) else None
        finally:
            if self._waiting.get(worker_id) is entry:
                del self._waiting[worker_id]

    def send_home(self, worker_id: str) -> None:
        """Answer the worker's waiting poll with nothing."""
        parked = self._waiting.pop(worker_id, None)
        if parked and not parked[1].done():
            parked[1].set_result(None)

    def pools(self) -> set[str]:
        """Return the pools that have a worker waiting."""
        return {pool for pool, future in self._waiting.values() if not future.done()}

    def of_pool(self, pool: str) -> list[str]:
        """Return the waiting workers of ``pool``, the longest waiting first.

        One whose time ran out in this very turn of the loop is not among them: it could not be given anything.
        """
        waiting = self._waiting.items()
        return [worker_id for worker_id, (its_pool, future) in waiting if its_pool == pool and not future.done()]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._waiting))

    def answer(self, worker_id: str, grant: Grant) -> None:
        """Let the worker's poll return with ``grant``.

        Where that poll is cancelled in this turn of the loop the grant reaches no worker; the worker's next account of
        what it runs brings it to light.
        """
        _, future = self._waiting.pop(worker_id)
        future.set_result(grant)
