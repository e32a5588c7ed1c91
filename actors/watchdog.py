"""Ends a queue actor that hangs, so that Ray starts it again. Ray watches nodes and processes, not event loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

import ray

from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME, RayTransport
from aiqueue.errors import QueueSilent, QueueUnavailable

_log = logging.getLogger(__name__)
_EVERY_S = 2.0
_LIMIT_S = 2.0
_MISSES = 5
_STUCK_S = 60.0  # a commit that long under way: the disk hangs


class Watchdog:
    """Asks the queue for a sign of life every two seconds; five misses in a row end its process."""

    def __init__(self, queue: RayTransport, namespace: str) -> None:
        self._queue, self._namespace = queue, namespace
        self._pid, self._node = 0, ""

    async def run(self) -> None:
        """Watch until cancelled."""
        misses = 0
        while True:
            await asyncio.sleep(_EVERY_S)
            misses = 0 if await self._is_well() else misses + 1
            if misses == _MISSES:
                misses = 0
                self._end()

    async def _is_well(self) -> bool:
        try:
            self._pid, self._node, stuck_s = await self._queue.pulse(limit_s=_LIMIT_S)
        except QueueSilent:
            return not self._pid  # one that has not answered yet is loading its journal
        except QueueUnavailable:
            self._pid = 0  # it is being started again
            return True
        return stuck_s < _STUCK_S

    def _end(self) -> None:
        _log.error("the queue actor (process %d) hangs: ending it", self._pid)
        if self._node == ray.get_runtime_context().get_node_id():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # a stopped process answers no request to end itself
        else:
            ray.kill(ray.get_actor(QUEUE_ACTOR_NAME, namespace=self._namespace), no_restart=False)
        self._pid = 0
