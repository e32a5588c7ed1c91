"""A worker that holds one llama.cpp model and serves many jobs with it at once."""

from __future__ import annotations

import logging
import os

from actors.worker_actor import WorkerActor
from aiqueue.errors import JobError

_log = logging.getLogger(__name__)


class LlamaWorkerActor(WorkerActor):
    """Loads its model before the first claim, and takes as many jobs as the model serves at once.

    A job claimed beyond that would wait here in front of an urgent one.
    """

    async def devices(self) -> str:
        """Return the GPUs that Ray gave this worker, as CUDA counts them: ``0,1``; empty for none."""
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    async def _warm_up(self) -> None:
        for name in self._settings.pools[self._pool].providers:
            try:
                await self._providers(name).health_check()
            except JobError as error:
                _log.error("pool %s can't serve %s: %s", self._pool, name, error)
