"""The queue and its workers as processes that can be killed and started again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from aiqueue.config import Settings
from aiqueue.engine import QueueEngine
from aiqueue.engine.commands import Command
from aiqueue.engine.counters import ClockMark
from aiqueue.engine.effects import Effects
from aiqueue.protocol import ClaimedJob
from aiqueue.service.clock import SteadyClock
from aiqueue.service.faults import jobs_to_set_aside
from aiqueue.service.queue_service import QueueService
from aiqueue.service.recovery import last_mark, policy_of
from aiqueue.testing.jobs import POOL
from aiqueue.testing.simulation.disk import History, SimulatedDisk, SimulatedWriter
from aiqueue.testing.simulation.loop import Node
from aiqueue.testing.simulation.network import Network, Served, SimulatedTransport
from aiqueue.testing.simulation.provider import Bill, SimulatedAnswers, WatchedRunner
from aiqueue.testing.simulation.releases import OF_BEFORE, ServedBefore, TransportBefore
from aiqueue.testing.simulation.world import World
from aiqueue.worker.loop import WorkerLoop

_RETRIED_AT_ONCE = 2
_ONE_BY_ONE = 0.1  # of all seeds: an answer to a worker has room for one job, as if all were large
_AT_ONCE = 2  # jobs of one kind of pending work in one step: what many jobs take many steps for, few do too
_AFTER_LOSS_S = (0.0, 0.1, 0.2015, 0.203, 0.5)  # a worker gives its account 0.2 s after a lost answer
_PREPARED = 2  # chains and graphs of three jobs and more are large ones


class WatchedEngine(QueueEngine):
    """Notes every exception of the engine: there must be none."""

    world: World

    def handle(self, command: Command, *, now: float) -> Effects:
        """As the engine's."""
        try:
            return super().handle(command, now=now)
        except Exception as error:
            self.world.violated("engine raised", type(command).__name__, repr(error))
            raise


class QueueHost:
    """Starts the queue, kills it, and starts it again from its disk."""

    def __init__(self, world: World, network: Network, settings: Settings) -> None:
        self._world, self._network, self._settings = world, network, settings
        self.history = History(world)
        self.disk = SimulatedDisk(world, self.history)
        self.lives = 0
        self.service: QueueService | None = None
        world.crash_queue = self.crash
        self.clock: SteadyClock | None = None
        self._gives_one_by_one = world.draws.random() < _ONE_BY_ONE

    def start(self) -> None:
        """Begin a life of the queue."""
        self.lives += 1
        node = self._world.node(f"queue-{self.lives}")
        self._world.note("queue starts", self.lives)
        try:
            self.service = node.context.copy().run(self._open)
        except Exception as error:
            self._world.violated("queue can't start", repr(error))
            raise
        served = ServedBefore if self._world.draws.random() < OF_BEFORE else Served
        self._network.queue = served(node, self.service)

    def crash(self) -> None:
        """Kill the queue. What was not on disk is gone."""
        queue = self._network.queue
        if queue is None:
            return
        self._world.note("queue dies", self.lives)
        self._world.later(self._world.draws.choice((0.0, 0.1, 1.0, 3.0)), self.start)
        self._network.queue = None
        if self._world.strikes("reboot", 0.3):
            self._world.reboot()
        self._world.loop.kill(queue.node)
        self.disk = self.disk.crash()
        self._network.drop(queue)
        self.service = None

    def load(self, now: float, mark: ClockMark) -> QueueEngine:
        """Return the engine as the disk has it."""
        return self._load(QueueEngine, now, mark)

    def _load(self, kind: type[QueueEngine], now: float, mark: ClockMark) -> QueueEngine:
        aside = jobs_to_set_aside(self.disk, now)
        with self.disk.recover() as recovered:
            policy = replace(policy_of(self._settings), most_at_once=_AT_ONCE)
            return kind.load(policy, **recovered._asdict(), now=now, without=aside, clock=mark)

    def _open(self) -> QueueService:
        world = self._world
        clock = self.clock = SteadyClock(world.wall, world.counted, world.boot)
        with self.disk.recover() as recovered:
            mark = clock.resume(last_mark(recovered.counters))
        engine = self._load(WatchedEngine, clock.now(), mark)
        assert isinstance(engine, WatchedEngine)
        engine.world = world
        writer: Any = partial(SimulatedWriter, world=world)
        service = QueueService(
            self._settings,
            self.disk,
            engine=engine,
            clock=clock,
            writer=writer,
            restarted=self.lives > 1,
            end=self.crash,
        )
        service.batches.retries.at_once = _RETRIED_AT_ONCE
        if self._gives_one_by_one:
            service._workers._reader.room = 1
        service._intake.prepared_from = _PREPARED
        return service


class WorkerHost:
    """One worker, and those that come after it."""

    def __init__(self, world: World, network: Network, settings: Settings, bill: Bill, name: str, slots: int) -> None:
        self._world, self._network, self._settings, self._bill = world, network, settings, bill
        self._name, self._slots = name, slots
        self._lives = 0
        self.loop: WorkerLoop | None = None
        self._node: Node | None = None
        self._running: set[str] = set()
        self.check: Any = None

    def start(self) -> None:
        """Begin a life of the worker."""
        self._lives += 1
        worker_id = f"{self._name}-{self._lives}"
        self._node = self._world.node(worker_id)
        carrier = TransportBefore if self._world.draws.random() < OF_BEFORE else SimulatedTransport
        transport = carrier(self._network, worker_id, poll_limit_s=self._settings.lease.poll_limit_s)
        answers = SimulatedAnswers(self._world, self._bill, self.die)
        runner = WatchedRunner(self._world, self._bill, answers, self._started)
        agree_every_s = self._settings.lease.poll_s
        self.loop = self._node.context.copy().run(
            partial(
                WorkerLoop, worker_id, POOL, self._slots, queue=transport, runner=runner, agree_every_s=agree_every_s
            )
        )
        self._world.loop.spawn(self._node, self.loop.run())

    def die(self) -> None:
        """Lose the process; somebody sees it, or only the lease does. Another one takes its place."""
        node, world = self._node, self._world
        if node is None or not node.alive:
            return
        world.note("worker dies", node)
        self._excuse()
        world.loop.kill(node)
        if world.draws.random() < 0.7:
            pool = world.node("pool")
            telling = SimulatedTransport(self._network, "pool").lose(node.name, "died", crashed=True)
            world.later(world.delay_s(), world.loop.spawn, pool, telling)
        world.later(world.draws.choice((0.1, 1.0, 2.0)), self.start)

    async def stop(self) -> None:
        """End the worker in good order, and start another one."""
        node, loop = self._node, self.loop
        if node is None or loop is None or not node.alive or loop.draining:
            return
        if self._world.strikes("stop after a loss", 0.5):
            after_s = self._world.draws.choice(_AFTER_LOSS_S)
            self._network.unlucky[node.name] = lambda: self._world.later(after_s, self._begin_stop, node, loop)
        else:
            self._begin_stop(node, loop)

    def _begin_stop(self, node: Node, loop: WorkerLoop) -> None:
        if node.alive and not loop.draining:
            self._world.loop.spawn(node, self._stop(node, loop))

    async def _stop(self, node: Node, loop: WorkerLoop) -> None:
        self._world.note("worker stops", node)
        self._excuse()
        await loop.stop(grace_s=1.0)
        self._check_left_behind(node.name)
        if self.loop is loop:
            self.start()

    def _check_left_behind(self, worker_id: str) -> None:
        """See that nothing waits for the lease of a worker that ended in good order: each job would count a crash."""
        queue = self._network.queue
        worker = queue and queue.service._engine.core.leases.find(worker_id)
        if worker and worker.held:
            self._world.violated(
                "left behind by a worker that drained", worker_id, *(each[-12:] for each in worker.held)
            )

    def _started(self, job: ClaimedJob) -> None:
        self._running.add(job.job_id)
        self.check(job)

    def _excuse(self) -> None:
        for job_id in self._running:
            self._bill.excused[job_id] += 1
            self._bill.refused_at.pop(job_id, None)  # the queue may never hear of that 429
        self._running.clear()
