"""Ends a queue actor that hangs, so that Ray starts it again. Ray watches nodes and processes, not event loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

import ray

from actors import cluster
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME, RayTransport
from aiqueue.errors import AIQueueError, QueueUnavailable

_log = logging.getLogger(__name__)
_EVERY_S = 2.0
_LIMIT_S = 2.0
_MISSES = 5
_STUCK_S = 60.0  # a commit that long under way: the disk hangs
_MISSING = 300  # looks in a row without such an actor: ten minutes, in which somebody may start it again


class Watchdog:
    """Asks the queue for a sign of life every two seconds; five misses in a row end its process."""

    def __init__(self, queue: RayTransport, namespace: str) -> None:
        self._queue, self._namespace = queue, namespace
        self._said = ""  # by the last error that was an answer
        self._missing = 0  # looks in a row that found no such actor

    async def run(self) -> None:
        """Watch until there has been no queue for ten minutes: then its system is gone.

        One that Ray starts again, or can't start yet, has its name all the time.
        """
        misses = 0
        while self._missing < _MISSING:
            await asyncio.sleep(_EVERY_S)
            try:
                misses = 0 if await self._is_well() else misses + 1
                if misses == _MISSES:
                    misses = 0
                    await asyncio.to_thread(self._end)
            except Exception:  # of Ray, most likely: it can't be asked just now
                _log.exception("the watchdog could not look at the queue this time")

    async def _is_well(self) -> bool:
        missing, self._missing = self._missing, 0
        try:
            return await self._queue.commit_waits_s(limit_s=_LIMIT_S) < _STUCK_S
        except QueueUnavailable:
            actor = await asyncio.to_thread(cluster.find, QUEUE_ACTOR_NAME, self._namespace)
            if actor is None:
                self._missing = missing + 1
                return True
            # Reading the journal is part of its start: the constructor returns after it.
            return await asyncio.to_thread(cluster.state_of, actor) != cluster.ALIVE
        except AIQueueError as error:
            if str(error) != self._said:
                self._said = str(error)
                _log.error("the queue answers with an error: %s", error)
            return True  # that is an answer: its loop turns

    def _end(self) -> None:
        actor = cluster.find(QUEUE_ACTOR_NAME, self._namespace)
        if actor is None:
            return
        pid, node = cluster.process_of(actor)
        _log.error("the queue actor (process %d) hangs: ending it", pid)
        if node == ray.get_runtime_context().get_node_id():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # a stopped process answers no request to end itself
        else:
            ray.kill(actor, no_restart=False)
