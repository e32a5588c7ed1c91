"""The queue actor: ``QueueService`` behind actor calls that carry msgpack."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from functools import partial

import ray

from actors import cluster
from actors.loading import load, load_again
from actors.metrics import QueueMetrics
from aiqueue.background import until_done
from aiqueue.config import SentSettings
from aiqueue.service.answering import AnsweredCalls
from aiqueue.service.clock import SteadyClock
from aiqueue.service.queue_service import QueueService

_LOOK_S = 5.0


class QueueActor(AnsweredCalls):
    """Named, detached, restarts for ever; lives on the node that holds the journal.

    The constructor returns when the journal is loaded: a call made during a restart waits, or is told to come again.
    Nothing here awaits between reading a call and handing it to the service, which needs no lock.
    """

    def __init__(self, settings_json: str) -> None:
        self._settings = SentSettings.received(settings_json)
        self._clock = SteadyClock()
        self._again = ray.get_runtime_context().was_current_actor_reconstructed
        self._loaded = (
            load_again(self._settings, self._clock, leave=_end_process)
            if self._again
            else load(self._settings, self._clock)
        )
        self._service: QueueService | None = None
        # The writer thread needs Python's lock a few times per commit; a busy loop keeps it for 5 ms by default.
        sys.setswitchinterval(0.0001)
        # The backlog is long-lived: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    async def pid(self) -> int:
        """Return the process id, for those who test what happens when it dies."""
        return os.getpid()

    async def close(self) -> None:
        """Commit what is pending, close the journal and end this process, whether or not the caller is still there."""
        service = self._open()
        self._metrics.cancel()
        self._looking.cancel()
        try:
            await service.close()
        finally:
            cluster.end_actor(ray.get_runtime_context().current_actor)

    async def no_op(self) -> None:
        """Do nothing: what an actor call costs, for the benchmarks."""

    def _open(self) -> QueueService:
        if self._service is None:
            self._service = QueueService(
                self._settings,
                self._loaded.journal,
                engine=self._loaded.engine,
                info=self._loaded.info,
                clock=self._clock,
                restarted=self._again,
                end=_end_process,
            )
            self._looking = asyncio.create_task(
                until_done(partial(_look_at_pools, self._service), "looking at the pools", retry_s=_LOOK_S)
            )
            self._metrics = asyncio.create_task(QueueMetrics(self._service, tuple(self._settings.pools)).run())
        return self._service


async def _look_at_pools(service: QueueService) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        await service.look_at_pools()


def _end_process() -> None:
    """End this process at once, so that nothing that waits is answered from memory; Ray starts it again."""
    logging.shutdown()
    os._exit(1)
