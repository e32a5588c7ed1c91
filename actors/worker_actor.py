"""Workers: `WorkerLoop` in an actor. One that calls providers, and one that holds a model."""

from __future__ import annotations

import asyncio
import gc
import os

from aiqueue.client.ray_transport import RayTransport
from aiqueue.config import SentSettings
from aiqueue.ids import new_id
from aiqueue.providers.registry import open_provider
from aiqueue.worker.loop import WorkerLoop
from aiqueue.worker.runner import JobRunner, ProviderSet

_POLL_MARGIN_S = 15.0


class WorkerActor:
    """Runs many jobs of one pool at once on providers reached over the network.

    Each process has a worker id of its own: after a restart the queue must not take it for the one that died.
    """

    def __init__(self, settings_json: str, pool: str) -> None:
        self._settings = SentSettings.model_validate_json(settings_json)
        self._pool = pool
        self._id = new_id("worker")
        self._providers = ProviderSet(
            lambda name: open_provider(name, self._settings.providers[name], os.environ),
            self._settings.pools[pool].providers,
        )
        # What is there now stays: the collector need not walk it whenever some thousand jobs have passed.
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        self._loop: WorkerLoop | None = None
        self._serving: asyncio.Task[None] | None = None

    async def identify(self) -> str:
        """Return the worker's id: another one after a restart."""
        return self._id

    async def pid(self) -> int:
        """Return the process id, for those who test what happens when it dies."""
        return os.getpid()

    async def serve_jobs(self) -> None:
        """Work until ``stop``. Called again (by a pool manager that restarted) it joins the work under way."""
        if self._serving is None:
            await self._warm_up()
            self._loop = self._make_loop()
            self._serving = asyncio.create_task(self._loop.run())
        await asyncio.shield(self._serving)

    async def stop(self, grace_s: float) -> None:
        """Take no more work, let running jobs end within ``grace_s`` seconds, hand the others back."""
        if self._loop is not None:
            await self._loop.stop(grace_s=grace_s)
        await self._providers.close()

    def _make_loop(self) -> WorkerLoop:
        settings = self._settings
        return WorkerLoop(
            self._id,
            self._pool,
            self._slots(),
            queue=RayTransport(settings.namespace, poll_limit_s=settings.lease.heartbeat_s + _POLL_MARGIN_S),
            runner=JobRunner(self._providers, max_result_bytes=settings.limits.max_result_bytes),
        )

    def _slots(self) -> int:
        return self._settings.pools[self._pool].slots

    async def _warm_up(self) -> None:
        """Get ready before the first claim."""
