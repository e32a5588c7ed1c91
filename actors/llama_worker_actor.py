"""A worker that holds one llama.cpp model and serves many jobs with it at once."""

from __future__ import annotations

import os
from functools import partial

from actors.worker_actor import WorkerActor
from aiqueue.worker.warm_up import warm_up


class LlamaWorkerActor(WorkerActor):
    """Loads its model before the first claim, and takes as many jobs as the model serves at once.

    A job claimed beyond that would wait here in front of an urgent one.
    """

    async def devices(self) -> str:
        """Return the GPUs that Ray gave this worker, as CUDA counts them: ``0,1``; empty for none."""
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    async def _warm_up(self) -> None:
        for name in self._settings.pools[self._pool].providers:
            await warm_up(partial(self._load, name), told=self._tell, stopping=lambda: self._stopping)

    async def _load(self, provider: str) -> None:
        await self._providers(provider).health_check()

    def _tell(self, trouble: str) -> None:
        self._trouble = trouble
