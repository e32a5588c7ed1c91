"""Workers: `WorkerLoop` in an actor. One that calls providers, and one that holds a model."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import time

import ray

from actors import cluster
from actors.options import settings_mark
from actors.orphans import wait_until_orphaned
from aiqueue.background import until_done
from aiqueue.client.ray_transport import RayTransport
from aiqueue.config import SentSettings
from aiqueue.ids import new_id
from aiqueue.pools import slots_of
from aiqueue.protocol import encode
from aiqueue.providers.registry import open_provider
from aiqueue.scaling import WorkerReport
from aiqueue.worker.loop import WorkerLoop
from aiqueue.worker.name_look_ups import look_up_many_at_once
from aiqueue.worker.runner import JobRunner, ProviderSet
from aiqueue.worker.vitals import GarbageBetweenJobs, LoopLag, private_mb

_RETRY_S = 1.0


class WorkerActor:
    """Runs many jobs of one pool at once on providers reached over the network.

    Each process has a worker id of its own: after a restart the queue must not take it for the one that died.
    What the pool manager asks of a worker of any kind: ``report``, ``serve_jobs``, ``stop``.
    """

    def __init__(self, settings_json: str, pool: str) -> None:
        look_up_many_at_once()
        self._settings = SentSettings.received(settings_json)
        self._mark = settings_mark(self._settings)
        self._pool = pool
        self._config = self._settings.pools[pool]
        self._id = new_id("worker")
        self._providers = ProviderSet(
            lambda name: open_provider(name, self._settings.providers[name], os.environ, self._settings.models),
            self._config.providers,
        )
        longest_ms = self._config.max_execution_time_ms
        self._runner = JobRunner(
            self._providers,
            max_result_bytes=self._settings.limits.max_result_bytes,
            max_execution_s=longest_ms / 1e3 if longest_ms else math.inf,
        )
        # What is there now stays: the collector need not walk it whenever some thousand jobs have passed.
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        self._lag = LoopLag()
        self._began_at = time.monotonic()
        self._measuring: asyncio.Task[None] | None = None
        self._loop: WorkerLoop | None = None
        self._serving: asyncio.Task[None] | None = None
        self._stopping = False
        self._trouble = ""
        # If the manager is gone before this process starts, nobody ever calls it. A task, because Ray can lose an
        # actor's call to itself just after a restart.
        end = until_done(self._end_orphaned, "ending an orphan", retry_s=_RETRY_S)
        self._watching = asyncio.create_task(end)

    async def report(self) -> bytes:
        """Return a WorkerReport: who and where this worker is, and how it is."""
        if self._measuring is None:
            self._measuring = asyncio.create_task(self._lag.run())
        refused = self._loop.refused if self._loop else ""
        late_s, late_job = self._runner.deadlines.longest_overrun(now=asyncio.get_running_loop().time())
        report = WorkerReport(
            worker_id=self._id,
            pid=os.getpid(),
            node=ray.get_runtime_context().get_node_id(),
            draining=self._stopping,
            running=self._loop.running if self._loop else 0,
            private_mb=private_mb(),
            lag_s=self._lag.take_s(),
            overrun_s=late_s,
            overrun_job=late_job,
            starting_s=0.0 if self._loop else time.monotonic() - self._began_at,
            trouble=self._trouble or refused,
            refused=bool(refused),
            settings=self._mark,
        )
        return encode(report)

    async def pid(self) -> int:
        """Return the process id, for those who test what happens when it dies."""
        return os.getpid()

    async def serve_jobs(self) -> None:
        """Work until ``stop``. Called again (by a pool manager that restarted) it joins the work under way."""
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        await asyncio.shield(self._serving)

    async def stop(self, grace_s: float) -> None:
        """Take no more work, let running jobs end within ``grace_s`` seconds, hand the others back.

        One that is still getting ready runs nothing: it returns at once, and what it loads or fetches ends with it.
        """
        first, self._stopping = not self._stopping, True
        if self._loop is None:
            return
        await self._loop.stop(grace_s=grace_s)
        if first:
            await self._providers.close()

    async def _end_orphaned(self) -> None:
        await wait_until_orphaned(self._settings.namespace)
        await asyncio.to_thread(cluster.end_actor, ray.get_runtime_context().current_actor)

    async def _serve(self) -> None:
        await self._warm_up()
        if not self._stopping:
            self._loop = self._make_loop()
            await self._loop.run()

    def _make_loop(self) -> WorkerLoop:
        settings = self._settings
        slots = slots_of(settings, self._pool)
        return WorkerLoop(
            self._id,
            self._pool,
            slots.all,
            queue=RayTransport(settings.namespace, poll_limit_s=settings.lease.poll_limit_s),
            runner=self._runner,
            between_jobs=GarbageBetweenJobs() if self._config.gc_between_jobs else None,
            urgent_slots=slots.urgent,
            agree_every_s=settings.lease.poll_s,
        )

    async def _warm_up(self) -> None:
        """Get ready before the first claim."""
