"""One pool's workers: carries out what its roster decides, and tells the roster what happens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from actors import cluster
from actors.llama_worker_actor import LlamaWorkerActor
from actors.options import settings_mark, worker_options
from actors.worker_actor import WorkerActor
from aiqueue.background import until_done
from aiqueue.client.ray_transport import RayTransport
from aiqueue.config import Settings
from aiqueue.errors import IncompatibleVersion, QueueUnavailable
from aiqueue.pools import health_limits, scaling_rule
from aiqueue.scaling import (
    Action,
    Announce,
    Drain,
    GiveBack,
    Health,
    Kill,
    PoolLoad,
    Roster,
    Start,
    WorkerReport,
    scaler_for,
)
from aiqueue.scaling.load import decode_report

_log = logging.getLogger(__name__)
_RETRY_S = 0.2
_WARMING_S = 2.0  # between two checks of a worker that takes no jobs yet
_CHECK_LIMIT_S = 10.0  # a worker at its limits still answers a check by then
_STOP_MARGIN_S = 5.0  # after a drain's own limit
_MOST_FAULTS = 5  # of the queue on one message
_NODE_MARGIN_S = 5.0  # before a node is gone its workers are to have handed back what they run


class WorkerPool:
    """The workers of ``pool``. Methods that are no coroutines return at once; what takes time goes on by itself."""

    def __init__(self, settings: Settings, pool: str, queue: RayTransport) -> None:
        self._settings, self._json, self._pool, self._queue = settings, settings.model_dump_json(), pool, queue
        self._config = settings.pools[pool]
        self._rule, self._limits = scaling_rule(settings, pool), health_limits(settings, pool)
        self._scaler = scaler_for(self._rule)
        self._mark = settings_mark(settings)
        self.roster = Roster(pool, self._rule.default_workers)
        self._actors: dict[str, Any] = {}
        self._reports: dict[str, WorkerReport] = {}
        self._adopted: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._messages: asyncio.Queue[asyncio.Task[None] | GiveBack | Announce] = asyncio.Queue()
        self._creations: set[asyncio.Task[None]] = set()  #: of the tasks, those that start a worker
        self._one_creation = asyncio.Lock()
        self._stopping = False

    def begin(self, found: Mapping[str, Any], *, again: bool, least_cpus: float = 0.0) -> None:
        """Take in the workers that an earlier manager started, and start what is missing.

        ``found``: the actors of all workers that there are, by their names. ``again``: the system runs already, so the
        pool has the size it is found with, also if that is none. ``least_cpus``: what a worker reserves whose pool does
        not say.
        """
        self._least_cpus = least_cpus
        self.roster.adopt(sorted(found))
        if self._rule.auto_scale and (again or self.roster.members):
            self.roster.goal = max(self._rule.min_workers, min(self.roster.size, self._rule.max_workers))
        for name in self.roster.members:
            self._actors[name] = found[name]
            self._adopted.add(name)
            self._watch_over(name)
        self._spawn(self._deliver())
        self._refill()

    async def started(self) -> None:
        """Return when Ray has been asked for every worker that was to be started by now."""
        if self._creations:
            await asyncio.wait(self._creations)

    def resize(self, load: PoolLoad) -> None:
        """Look at the load and grow or shrink."""
        self._carry_out(self.roster.settle(load.held))
        now = asyncio.get_running_loop().time()
        target = self._scaler.target(load, self.roster.goal, now=now)
        self._carry_out(self.roster.resize(target, load.held, now=now))

    def look_at(self, nodes: cluster.Nodes) -> None:
        """Give back what ran on nodes that are gone; move workers away from those that are about to go."""
        for name, report in list(self._reports.items()):
            if report.node in nodes.dead:  # one that is not listed at all is newer than the list
                del self._reports[name]
                self._carry_out(self.roster.fell(name, _node_died(report.node), crashed=False))
        for node, until in nodes.draining.items():
            left_s = until - time.time() - _NODE_MARGIN_S if until else self._config.drain_ms / 1e3
            limit_s = max(0.0, min(left_s, self._config.drain_ms / 1e3))
            for name in self.roster.on_node(node):
                reason = f"its node {node[:8]} is being drained"
                self._carry_out(self.roster.replace(name, reason, hard=False, limit_s=limit_s))
        self._refill()

    async def stop(self, grace_s: float) -> None:
        """Drain all workers and end them. Raises the first error of those that could not be ended."""
        for task in self._tasks - self._creations:
            task.cancel()
        self._stopping = True
        if self._creations:  # a thread can't be cancelled, and what it starts would stay
            await asyncio.wait(self._creations, timeout=_STOP_MARGIN_S)
        stops = [
            asyncio.ensure_future(self._ask_to_stop(actor, grace_s))
            for name, actor in self._actors.items()
            if self._may_run_jobs(name)
        ]
        if stops:
            await asyncio.wait(stops, timeout=grace_s + _STOP_MARGIN_S)
        ends = [asyncio.to_thread(cluster.end_actor, actor) for actor in self._actors.values()]
        for error in await asyncio.gather(*ends, return_exceptions=True):
            if error is not None:
                raise error

    # --- actions ---

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self._start(action.name)
            elif isinstance(action, Drain):
                self._spawn(self._drain(action))
            elif isinstance(action, Kill):  # at once, whether or not the queue can be reached
                self._messages.put_nowait(self._spawn(self._end(action.name)))
            else:
                self._messages.put_nowait(action)  # in order: what is dead is given back, and then told of

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        self._carry_out(self.roster.resize(self.roster.goal, {}, now=now))

    def _start(self, name: str) -> None:
        creation = self._spawn(self._create(name))
        self._creations.add(creation)
        creation.add_done_callback(self._creations.discard)

    async def _create(self, name: str) -> None:
        kind = LlamaWorkerActor if self._settings.serves_local_model(self._pool) else WorkerActor
        options = worker_options(self._config, name, self._settings.namespace, least_cpus=self._least_cpus)
        create = ray.remote(kind).options(**options).remote
        async with self._one_creation:  # while Ray can't be reached, only one thread waits for it
            if self._stopping or name not in self.roster.members:
                return
            try:
                self._actors[name] = await asyncio.to_thread(create, self._json, self._pool)
            except Exception as error:  # Ray can't be reached: the roster tries again, later each time
                self._died(name, error, "it could not be started", crashed=False)
                return
        if self._stopping:
            return
        if name in self.roster.members:
            self._watch_over(name)
        else:
            await self._end(name)

    async def _drain(self, action: Drain) -> None:
        actor = self._actors.get(action.name)
        limit_s = self._config.drain_ms / 1e3 if action.limit_s is None else action.limit_s
        if actor is not None and self._may_run_jobs(action.name):
            stop = asyncio.ensure_future(self._ask_to_stop(actor, limit_s))
            await asyncio.wait([stop], timeout=limit_s + _STOP_MARGIN_S)
        await self._end(action.name)
        self._carry_out(self.roster.drained(action.name))

    def _may_run_jobs(self, name: str) -> bool:
        """Tell whether a worker has spoken, to this manager or an earlier one; before that it runs nothing."""
        return name in self._reports or name in self._adopted

    async def _end(self, name: str) -> None:
        actor, _ = self._actors.pop(name, None), self._reports.pop(name, None)
        if actor is not None:
            end = partial(asyncio.to_thread, cluster.end_actor, actor)
            await until_done(end, f"{name}: ending it", retry_s=_RETRY_S)

    async def _deliver(self) -> None:
        """Carry out, one after the other, what others must hear of in order."""
        while True:
            message = await self._messages.get()
            if isinstance(message, asyncio.Task):
                await asyncio.wait([message])  # what it ran is given back when it no longer runs
            elif isinstance(message, GiveBack):
                lost = partial(self._queue.lose_worker, message.worker_id, message.reason, crashed=message.crashed)
                await self._persist(lost)
            else:
                _log.warning("%s: %s", message.event, dict(message.data))
                await self._persist(partial(self._queue.announce, message.event, message.data))

    async def _persist(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Make the call until the queue has answered it; one on which the queue fails must not keep back the others."""
        faults = 0
        while faults < _MOST_FAULTS:
            try:
                await call()
            except (QueueUnavailable, IncompatibleVersion):
                pass
            except Exception:
                faults += 1
                _log.exception("pool %s: the queue failed on a message (%d of %d)", self._pool, faults, _MOST_FAULTS)
            else:
                return
            await asyncio.sleep(_RETRY_S)
        _log.error("pool %s: a message to the queue was dropped; the leases of a dead worker end in time", self._pool)

    # --- what happens ---

    def _watch_over(self, name: str) -> None:
        self._spawn(until_done(partial(self._watch, name), f"{name}: the watch over it", retry_s=_RETRY_S))
        self._spawn(until_done(partial(self._check, name), f"{name}: its health check", retry_s=_RETRY_S))

    async def _watch(self, name: str) -> None:
        """Keep the worker at work for as long as it is this pool's, through restarts of its process."""
        while (actor := self._actors.get(name)) is not None:
            try:
                self._heard(name, decode_report(await actor.report.remote()))
                await actor.serve_jobs.remote()
                return  # it has drained
            except RayActorError as error:
                await asyncio.sleep(_RETRY_S)
                await self._look_for(name, actor, error)
            except RayError as error:  # a bug in its code: it would run into it again
                _log.exception("%s can't work", name)
                self._ill(name, f"it can't work: {type(error).__name__}", hard=True)

    async def _look_for(self, name: str, actor: Any, error: Exception) -> None:
        """Find out what an error of a call to a worker means: its process may be gone, or only the call."""
        report = self._reports.get(name)
        gone = await asyncio.to_thread(cluster.is_gone, name, self._settings.namespace)
        state = "" if gone else await asyncio.to_thread(cluster.state_of, actor)
        if not gone and state != cluster.RESTARTING:
            return
        # Ray ends an actor of a lost node only after it has marked the node dead.
        dead = (await asyncio.to_thread(cluster.nodes)).dead
        if name not in self._actors:
            return
        lost = report is not None and report.node in dead
        reason = _node_died(report.node) if report and lost else "its process died"
        crashed = not (lost or getattr(error, "preempted", False))
        if gone:
            said = cluster.start_error(error)
            self._died(name, error, f"it could not start: {said}" if said else reason, crashed=crashed)
        elif report and self._reports.get(name) is report:
            del self._reports[name]  # the next process may have to wait for room: the jobs need not
            self._carry_out(self.roster.fell(name, reason, crashed=crashed))

    async def _check(self, name: str) -> None:
        """Ask for a sign of life and of health again and again; one that does not answer is asked again at once."""
        health, known, answered, ready = Health(self._limits), "", True, False
        interval_s = self._config.health_check_interval_ms / 1e3
        limit_s = min(interval_s, _CHECK_LIMIT_S)
        while True:
            wait_s = interval_s if ready else min(interval_s, _WARMING_S)
            await asyncio.sleep(wait_s if answered else 0.0)
            answered = True
            actor = self._actors.get(name)
            if actor is None:
                return
            if name not in self._reports and await asyncio.to_thread(cluster.state_of, actor) != cluster.ALIVE:
                continue  # it waits for its node, or for its process; one that is there must answer
            try:
                async with asyncio.timeout(limit_s):
                    report = decode_report(await actor.report.remote())
            except TimeoutError:
                answered, verdict = False, health.missed(limit_s)
            except RayError:
                continue  # the watch deals with it
            else:
                if report.worker_id != known:
                    health, known = Health(self._limits), report.worker_id
                verdict, ready = health.reported(report), not report.starting_s
                self._heard(name, report)
            if verdict and name in self._actors:
                self._ill(name, verdict.reason, hard=verdict.hard)

    def _heard(self, name: str, report: WorkerReport) -> None:
        if name not in self._actors:
            return
        self._reports[name] = report
        self._carry_out(self.roster.spoke(name, report))
        if report.settings not in ("", self._mark):  # started by a system whose stop was cut off
            reason, limit_s = "it runs with other settings", self._config.drain_ms / 1e3
            self._carry_out(self.roster.replace(name, reason, hard=False, limit_s=limit_s))
            self._refill()

    def _ill(self, name: str, reason: str, *, hard: bool) -> None:
        self._carry_out(self.roster.replace(name, reason, hard=hard))
        self._refill()

    def _died(self, name: str, error: Exception, reason: str, *, crashed: bool) -> None:
        _log.warning("%s is gone: %s", name, error)
        self._actors.pop(name, None)
        self._reports.pop(name, None)
        now = asyncio.get_running_loop().time()
        self._carry_out(self.roster.died(name, reason, crashed=crashed, now=now))
        self._refill()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("pool %s: bug in its manager", self._pool, exc_info=error)

    async def _ask_to_stop(self, actor: Any, grace_s: float) -> None:
        try:
            await actor.stop.remote(grace_s)
        except Exception as error:  # it is ended in any case
            _log.info("pool %s: a worker that stops is gone already: %s", self._pool, type(error).__name__)


def _node_died(node: str) -> str:
    return f"its node {node[:8]} died"
