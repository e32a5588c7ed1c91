"""Keeps every pool at the size that its load calls for, and its workers well."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

import ray
from ray.exceptions import RayError

from actors import cluster
from actors.options import bundle, least_cpus
from actors.watchdog import Watchdog
from actors.worker_pool import WorkerPool
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME, RayTransport
from aiqueue.config import SentSettings
from aiqueue.errors import IncompatibleVersion, QueueUnavailable
from aiqueue.scaling.roster import WORKER_PREFIX, is_worker_of

_log = logging.getLogger(__name__)
_NODES_S = 1.0
_RETRY_S = 1.0
_CLOSE_S = 15.0  # for the queue to commit what is pending


class PoolManager:
    """Named and detached. After a restart it finds its workers by their names and goes on.

    Workers that find no room are pending actors, and those are the demand on which Ray's autoscaler adds nodes.
    """

    def __init__(self, settings_json: str) -> None:
        self._settings = SentSettings.received(settings_json)
        self._queue = RayTransport(self._settings.namespace)
        self._pools = {name: WorkerPool(self._settings, name, self._queue) for name in self._settings.pools}
        self._loops: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()
        self._stop: asyncio.Task[None] | None = None  #: of the whole system
        self._stop_later: asyncio.TimerHandle | None = None
        context = ray.get_runtime_context()
        self._again = bool(context.was_current_actor_reconstructed)
        self._myself = context.current_actor
        # Nobody else starts it after a restart. A task, because Ray can lose an actor's call to itself at that moment.
        self._keeping = asyncio.create_task(self.keep_starting())

    async def keep_starting(self) -> None:
        """Start, and try again while that fails: after a restart of this process nobody else would."""
        while not self._loops:
            try:
                await self.start()
            except Exception:
                _log.exception("the pools can't be started yet; next try in %g s", _RETRY_S)
                await asyncio.sleep(_RETRY_S)

    async def start(self) -> list[str]:
        """Start all pools' first workers, or find them, and return their names. Doing it again changes nothing.

        Raises QueueUnavailable while the system is being stopped.
        """
        async with self._starting:
            await self.stay()
            await self._begin()
        await asyncio.gather(*(pool.started() for pool in self._pools.values()))
        return [name for pool in self._pools.values() for name in pool.roster.members]

    async def _begin(self) -> None:
        if self._loops:
            return
        found, self._least_cpus = await asyncio.to_thread(self._look_around)
        await asyncio.to_thread(cluster.keep_room, self._settings.namespace, self._room())
        for pool in self._pools.values():
            pool.begin(found, again=self._again, least_cpus=self._least_cpus)
        self._loops = [
            asyncio.create_task(self._watch_over_queue()),
            asyncio.create_task(self._every(self._settings.scaling_interval_ms / 1e3, self._resize)),
            asyncio.create_task(self._every(_NODES_S, self._look_at_nodes)),
        ]

    def _look_around(self) -> tuple[dict[str, Any], float]:
        """Find the pools' workers, and end those of pools that are no longer configured. Blocks for some calls."""
        names = [name for name in cluster.names_in(self._settings.namespace) if name.startswith(WORKER_PREFIX)]
        found = {name: actor for name in names if (actor := cluster.find(name, self._settings.namespace)) is not None}
        for name in [name for name in found if not any(is_worker_of(pool, name) for pool in self._settings.pools)]:
            _log.warning("%s belongs to no pool of this system: ending it", name)
            cluster.end_actor(found.pop(name))
        return found, least_cpus()

    async def stay(self) -> None:
        """Do not stop as ``stop_within`` said. Raises QueueUnavailable if the system is being stopped already."""
        if self._stop is not None:
            raise QueueUnavailable("the system is being stopped")
        self._disarm()

    async def stop(self, grace_s: float) -> None:
        """Drain all workers and end them, then the queue, then this process, also if the caller is gone by then."""
        async with self._starting:
            if self._stop is None:
                await self._begin()  # a manager that was just restarted has yet to find them
                self._stop = asyncio.create_task(self._end_all(grace_s))
        await asyncio.shield(self._stop)

    async def stop_within(self, limit_s: float, grace_s: float) -> None:
        """Stop as ``stop`` does when ``limit_s`` have passed, unless ``stop`` or ``start`` is called before."""
        self._disarm()
        self._stop_later = asyncio.get_running_loop().call_later(limit_s, self._stop_at_last, grace_s)

    def _stop_at_last(self, grace_s: float) -> None:
        _log.error("who was stopping this system has not ended it: ending it")
        self._last = asyncio.create_task(self.stop(grace_s))

    def _disarm(self) -> None:
        if self._stop_later is not None:
            self._stop_later.cancel()

    async def _end_all(self, grace_s: float) -> None:
        self._disarm()
        for loop in self._loops:
            loop.cancel()
        try:
            ends = await asyncio.gather(*(pool.stop(grace_s) for pool in self._pools.values()), return_exceptions=True)
            await self._close_queue()
            for error in ends:
                if isinstance(error, BaseException):
                    _log.error("a pool could not be ended: %s", error)
            await asyncio.to_thread(cluster.keep_room, self._settings.namespace, [])
        finally:
            cluster.end_actor(self._myself)

    async def _close_queue(self) -> None:
        queue = await asyncio.to_thread(cluster.find, QUEUE_ACTOR_NAME, self._settings.namespace)
        if queue is not None:
            with contextlib.suppress(RayError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await queue.close.remote()
            await asyncio.to_thread(cluster.end_actor, queue)

    async def workers(self) -> dict[str, str]:
        """Return the ids of all workers that have spoken, by their names."""
        members = [member for pool in self._pools.values() for member in pool.roster.members.values()]
        return {member.name: member.worker_id for member in members if member.worker_id}

    async def pid(self) -> int:
        """Return the process id, for those who test what happens when it dies."""
        return os.getpid()

    def _room(self) -> list[dict[str, float]]:
        pools = self._settings.pools.values()
        wanted = [bundle(p, least_cpus=self._least_cpus) for p in pools for _ in range(p.prewarm_workers)]
        return [room for room in wanted if room]

    async def _watch_over_queue(self) -> None:
        await Watchdog(self._queue, self._settings.namespace).run()
        _log.error("there has been no queue for ten minutes: ending this system")
        await self.stop(0.0)

    async def _resize(self) -> None:
        for name, load in (await self._queue.pool_loads()).items():
            if pool := self._pools.get(name):
                pool.resize(load)

    async def _look_at_nodes(self) -> None:
        nodes = await asyncio.to_thread(cluster.nodes)
        for pool in self._pools.values():
            pool.look_at(nodes)

    async def _every(self, interval_s: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        said = ""
        while True:
            try:
                await work()
                said = ""
            except (QueueUnavailable, IncompatibleVersion, RayError) as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("%s: %s", work.__name__, said)
            except Exception:
                _log.exception("%s: bug in the pool manager", work.__name__)
            await asyncio.sleep(interval_s)
