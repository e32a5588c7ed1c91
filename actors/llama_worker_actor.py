"""A worker that holds one llama.cpp model."""

from __future__ import annotations

import logging

from actors.worker_actor import WorkerActor
from aiqueue.errors import JobError

_log = logging.getLogger(__name__)


class LlamaWorkerActor(WorkerActor):
    """Loads its model before the first claim, and runs one request at a time."""

    def _slots(self) -> int:
        return 1  # a job claimed ahead would wait here in front of an urgent one

    async def _warm_up(self) -> None:
        for name in self._settings.pools[self._pool].providers:
            try:
                await self._providers(name).health_check()
            except JobError as error:
                _log.error("pool %s can't serve %s: %s", self._pool, name, error)
