"""Starts the workers of every pool and watches over them. A fixed number each, for now."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import ray
from ray.exceptions import RayActorError

from actors.llama_worker_actor import LlamaWorkerActor
from actors.options import worker_options
from actors.watchdog import Watchdog
from actors.worker_actor import WorkerActor
from aiqueue.client.ray_transport import RayTransport
from aiqueue.config import SentSettings
from aiqueue.errors import QueueUnavailable

_log = logging.getLogger(__name__)
_RETRY_S = 0.2


class PoolManager:
    """Named and detached. After a restart it finds its workers by name and goes on watching."""

    def __init__(self, settings_json: str) -> None:
        self._json = settings_json
        self._settings = SentSettings.model_validate_json(settings_json)
        self._queue = RayTransport(self._settings.namespace)
        self._workers: dict[str, Any] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._watchdog: asyncio.Task[None] | None = None
        # After a restart nobody else would call it.
        ray.get_runtime_context().current_actor.start.remote()

    async def start(self) -> list[str]:
        """Start all workers, or find them, and return their names. Doing it again changes nothing."""
        if self._watchdog is None:
            self._watchdog = asyncio.create_task(Watchdog(self._queue, self._settings.namespace).run())
        for pool, config in self._settings.pools.items():
            for number in range(config.workers):
                name = f"aiqueue-worker-{pool}-{number}"
                if name not in self._workers:
                    self._workers[name] = self._start_worker(pool, name)
                    self._watches[name] = asyncio.create_task(self._watch(name))
        return list(self._workers)

    async def stop(self, grace_s: float) -> None:
        """Drain all workers and end them."""
        await self.start()  # a manager that was just restarted has yet to find them
        self._stopping = True
        if self._watchdog:
            self._watchdog.cancel()
        for watch in self._watches.values():
            watch.cancel()
        stops = [worker.stop.remote(grace_s) for worker in self._workers.values()]
        if stops:
            await asyncio.wait([asyncio.wrap_future(stop.future()) for stop in stops], timeout=grace_s + 5.0)
        for worker in self._workers.values():
            ray.kill(worker)

    async def pid(self) -> int:
        """Return the process id, for those who test what happens when it dies."""
        return os.getpid()

    def _start_worker(self, pool: str, name: str) -> Any:
        kind = LlamaWorkerActor if self._settings.serves_local_model(pool) else WorkerActor
        options = worker_options(self._settings.pools[pool], name, self._settings.namespace)
        return ray.remote(kind).options(**options).remote(self._json, pool)

    async def _watch(self, name: str) -> None:
        """Keep the worker at work; when its process is gone, give its jobs back at once."""
        worker, known = self._workers[name], ""
        while not self._stopping:
            try:
                worker_id = await worker.identify.remote()
                if known and worker_id != known:
                    await self._report_loss(known, name)
                known = worker_id
                await worker.serve_jobs.remote()
            except RayActorError as error:
                _log.warning("%s: %s", name, type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def _report_loss(self, worker_id: str, name: str) -> None:
        while True:
            try:
                await self._queue.lose_worker(worker_id, f"the process of {name} died")
            except QueueUnavailable:
                await asyncio.sleep(_RETRY_S)
            else:
                return
