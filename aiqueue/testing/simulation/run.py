"""One seed, from the first process to the last check."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Awaitable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from aiqueue.batch_protocol import BatchCall
from aiqueue.config import (
    GateConfig,
    LeaseConfig,
    PoolConfig,
    ProviderConfig,
    RetentionConfig,
    RetryConfig,
    Settings,
)
from aiqueue.engine.schedule_records import SchedulesCall
from aiqueue.errors import AIQueueError
from aiqueue.ids import JobIdFactory, made_by
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import POOL, PROVIDER, chat
from aiqueue.testing.simulation.acts import ACTS
from aiqueue.testing.simulation.checks import check_all
from aiqueue.testing.simulation.clients import SimulatedClient
from aiqueue.testing.simulation.loop import Stuck
from aiqueue.testing.simulation.maps import LATE_RUN, LATE_S, map_late_rows, map_rows
from aiqueue.testing.simulation.network import Network, RemoteFault, SimulatedTransport
from aiqueue.testing.simulation.promises import Promises
from aiqueue.testing.simulation.provider import Bill
from aiqueue.testing.simulation.system import QueueHost, WorkerHost
from aiqueue.testing.simulation.world import Line, World

_STORM_S = 9.0
_CALM_S = 240  # within which everything ends
_LATEST_S = 60  # of the calm: no call of the storm comes later
_SHIFTS_S = (3_600.0, -3_600.0, 86_400.0, -86_400.0, 31_536_000.0, -31_536_000.0, 60.0, -5.0)
_REMOTE_IS_FINE = ("OSError",)
_WIDE = 0.01  # of all seeds: workers with so many slots that an answer's jobs are started in several turns of the loop
_WIDE_SLOTS = 400
_LATE = 0.003  # of all seeds: rows come so late that the run takes half an hour
_ACTS = (*ACTS, map_rows)


@dataclass(frozen=True, slots=True)
class Report:
    """What one seed came to."""

    seed: int
    violations: list[str]
    trace: list[str] = field(repr=False)  #: a line for each thing that happened
    happened: dict[str, int]  #: faults by name


def simulate(seed: int, only: Collection[str] = ()) -> Report:
    """Run one seed; ``only``: with these faults and no others."""
    world = World(seed, only)
    with _same_draws(world):
        try:
            world.loop.run_until_complete(_Scenario(world).run())
        except Stuck as error:
            world.violated("stuck", error)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            world.violated("simulation raised", repr(error), where.filename.rpartition("/")[2], where.lineno)
        finally:
            world.over = True
            world.loop.bury()
    return Report(seed, world.violations, [_text(line) for line in world.lines], world.happened)


def _text(line: Line) -> str:
    at, what = line
    return f"{at:9.3f}  {' '.join(map(str, what))}".encode("utf-8", "backslashreplace").decode()


@contextmanager
def _same_draws(world: World) -> Iterator[None]:
    """Let everything random, and all ids, follow from the seed."""
    before = random.getstate()
    random.seed(world.seed)
    try:
        with made_by(JobIdFactory(world.draws.randbytes, world.wall_ns)):
            yield
    finally:
        random.setstate(before)


def _settings() -> list[Settings]:
    """Return the systems that are simulated: one that forgets nothing, and some that forget soon."""
    retentions = (
        RetentionConfig(),
        RetentionConfig(),
        RetentionConfig(max_age_s=5.0, idempotency_s=10.0),
        RetentionConfig(max_jobs=8),
    )
    return [
        Settings(
            providers={
                PROVIDER: ProviderConfig(kind="simulated", gate=GateConfig(breaker_open_s=3.0, max_concurrent=8))
            },
            pools={POOL: PoolConfig(providers=(PROVIDER,), slots=4, workers=1)},
            retry=RetryConfig(base_s=0.2, cap_s=2.0, jitter=0.0, max_refusals=4),
            lease=LeaseConfig(heartbeat_s=3.0),
            retention=retention,
        )
        for retention in retentions
    ]


def _wide_settings() -> Settings:
    """Return a system whose provider takes many calls at once."""
    return Settings(
        providers={PROVIDER: ProviderConfig(kind="simulated", gate=GateConfig(breaker_open_s=3.0))},
        pools={POOL: PoolConfig(providers=(PROVIDER,), slots=_WIDE_SLOTS, workers=1)},
        retry=RetryConfig(base_s=0.2, cap_s=2.0, jitter=0.0, max_refusals=4),
        lease=LeaseConfig(heartbeat_s=0.5, missed_heartbeats=18),
    )


_SETTINGS: list[Settings] = []


class _Scenario:
    def __init__(self, world: World) -> None:
        self._world = world
        if not _SETTINGS:
            _SETTINGS.extend([*_settings(), _wide_settings()])
        wide = self._wide = world.draws.random() < _WIDE
        settings = self._settings = _SETTINGS[-1] if wide else world.draws.choice(_SETTINGS[:-1])
        self._network = Network(world)
        self._network.on_fault = self._queue_raised
        self._network.on_batch_call = self._batch_called
        self._queue = QueueHost(world, self._network, settings)
        self._bill = Bill()
        self._promises = Promises(world, self._queue.history)
        self._queue.history.on_delete = self._forget
        self._queue.history.on_repeat = self._promises.check_repeat
        self._queue.history.on_claim = self._promises.check_claim
        most = settings.retention.max_jobs
        self._queue.history.most_ended = most if most < 100 else 0
        self._queue.history.is_too_old = self._is_too_old
        self._promises.forgets = settings.retention != RetentionConfig()
        self._late = not wide and world.draws.random() < _LATE
        slots = _WIDE_SLOTS if wide else world.draws.choice((1, 2, 4))
        self._workers = [
            WorkerHost(world, self._network, settings, self._bill, f"worker-{number}", slots) for number in "ab"
        ]
        self._clients = [SimulatedClient(world, self._network, self._promises, f"client-{number}") for number in "xy"]

    async def run(self) -> None:
        world = self._world
        self._queue.start()
        for worker in self._workers:
            worker.check = self._promises.check_start
            worker.start()
        for client in self._clients:
            client.start()
        if self._wide:
            self._clients[0].begin(SimulatedClient.flood, 1.0)
        if self._late:
            self._clients[1].begin(map_late_rows, 1.0)
        for _ in range(world.draws.randint(2, 5)):
            world.draws.choice(self._clients).begin(world.draws.choice(_ACTS), world.draws.random() * _STORM_S * 0.8)
        world.loop.create_task(self._trouble())
        await asyncio.sleep(_STORM_S)
        world.storm, world.loop.calm = False, True
        world.change_clock(set_s=0.0)  # somebody sets it right
        world.note("--- the storm is over ---")
        await self._calm()
        if self._queue.service is not None:
            await self._check_ages()
            check_all(world, self._queue, self._promises, self._bill, self._clients)

    async def _trouble(self) -> None:
        """Strike once in a while, as long as the storm lasts."""
        world = self._world
        while world.storm:
            await asyncio.sleep(world.draws.choice((0.25, 0.5, 1.0)))
            if world.strikes("queue crash", 0.04):
                self._queue.crash()
            if world.strikes("worker death", 0.06):
                world.draws.choice(self._workers).die()
            if world.strikes("worker stop", 0.04):
                await world.draws.choice(self._workers).stop()
            if world.strikes("client death", 0.02):
                client = self._clients[0]
                world.note("client dies", client.name)
                world.loop.kill(client.node)
            if world.strikes("clock set", 0.04):
                shift = world.draws.choice(_SHIFTS_S)
                world.change_clock(set_s=world.set_s + shift)
            if world.strikes("sleep", 0.03):
                world.change_clock(slept_s=world.draws.choice((60.0, 3_600.0, 28_800.0)))
            if self._queue.service is not None:
                self._queue.service._retention._next_pass_at = 0.0  # a minute is long here

    async def _calm(self) -> None:
        """Tidy up as an operator would, and wait until all is done; then see that work goes on."""
        world = self._world
        transport = SimulatedTransport(self._network, "operator")
        late_until = world.quiet_at  # calls of the storm arrive until then
        for second in range(_CALM_S + 3 * int(LATE_S) if self._late else _CALM_S):
            service = self._queue.service
            if service is not None and second % 5 == 0:
                await self._tidy(service, transport, second)
            idle = service is not None and not self._is_busy() and not _has_work(service)
            if idle and second > 3 and world.loop.now > late_until:
                break
            await asyncio.sleep(1.0)
        good = SimulatedClient(world, self._network, self._promises, "client-z")
        self._clients.append(good)
        good.start()
        good.begin(_good, 0.0)
        for _ in range(60):
            await asyncio.sleep(1.0)
            if not good.busy:
                break

    async def _tidy(self, service: QueueService, transport: SimulatedTransport, second: int) -> None:
        """Resume what is paused, end what clients that died have left, and what a wrong clock put off for months."""
        left = second > 20 or (second > 5 and not self._is_busy())
        core = service._engine.core
        for batch_id, group in list(core.groups.live.items()):
            # Its first call may be late; or its client is dead, and another waits for what it was to run.
            mapped = group.spec.run == LATE_RUN or (group.spec.run and self._is_busy() and second < _LATEST_S)
            silent = group.is_open and left and not mapped
            action = "drop" if silent else "resume" if group.stored.paused and second > 5 else ""
            if action:
                await _try(transport.batch(BatchCall(batch_id, action)))
        for schedule in list(core.schedules) if left else ():
            await _try(transport.schedules(SchedulesCall("remove", schedule.spec.id)))
        if far := [job.id for job in core.live.values() if self._is_far(job.id)]:
            await _try(transport.cancel(far))

    def _is_busy(self) -> bool:
        return any(client.busy for client in self._clients if client.node.alive)

    async def _check_ages(self) -> None:
        """See that what is older than the system keeps is forgotten."""
        history, age = self._queue.history, self._settings.retention.max_age_s
        if age > 100.0:
            return
        await asyncio.sleep(age + 2.0)
        # No event says that the watchdog has begun a new queue, and waiting costs no real time here.
        while (service := self._queue.service) is None:  # noqa: ASYNC110
            await asyncio.sleep(1.0)
        before = -1
        while before < len(history.deleted):  # a failed job goes in the pass after the one its successor went in
            before = len(history.deleted)
            service._retention._next_pass_at = 0.0
            await asyncio.sleep(4.0)
        for seq, ended_at in history.ended_at.items():
            if seq not in history.deleted and ended_at < self._world.loop.now - age - 6.0:
                self._world.violated("kept beyond its age", seq)

    def _is_far(self, job_id: str) -> bool:
        """Tell whether a job waits for a time that a wrong clock made far away."""
        header = self._queue.history.headers.get(job_id)
        return header is not None and header.run_at > self._world.wall() + 60.0

    def _batch_called(self, call: BatchCall) -> None:
        if call.action == "retry_failed":
            self._promises.retried(call.batch_id)

    def _queue_raised(self, method: str, error: Exception) -> None:
        unknown = method == "hello" and isinstance(error, TypeError)  # to a queue of protocol 0
        if not (isinstance(error, OSError) or unknown):
            self._world.violated("call raised", method, repr(error))

    def _is_too_old(self, ended_at: float) -> bool:
        clock = self._queue.clock
        return clock is not None and ended_at < clock.now() - self._settings.retention.max_age_s

    def _forget(self, job_id: str) -> None:
        for counter in (self._bill.calls, self._bill.excused):
            counter.pop(job_id, None)
        for attempt in [attempt for attempt in self._bill.attempts if attempt[0] == job_id]:
            del self._bill.attempts[attempt]


async def _good(client: SimulatedClient) -> None:
    await client.adapter.submit_job_with_callback(chat("good"))


async def _try(call: Awaitable[object]) -> None:
    with suppress(AIQueueError, RemoteFault):
        await call


def _has_work(service: QueueService) -> bool:
    """Return True if a job or a batch has not ended, or if there will be more."""
    core = service._engine.core
    return bool(core.live or core.groups.live or core.schedules)
