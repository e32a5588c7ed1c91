"""What the pool manager does about workers that hang, die without room, or must go while the queue is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, RpcError

from actors import cluster, worker_pool
from actors.worker_pool import WorkerPool
from aiqueue.config import Settings
from aiqueue.errors import AIQueueError, QueueUnavailable
from aiqueue.protocol import encode
from aiqueue.scaling import GiveBack, WorkerReport
from tests.tools.turns import until

_NAME = "aiqueue-worker-p-0"


class FakeWorker:
    """An actor handle: ``report.remote()`` and so on answer as the test says."""

    def __init__(self, worker_id: str = "w0", node: str = "n0") -> None:
        self.said = WorkerReport(worker_id, 1, node)
        self.hangs = False
        self.state = cluster.ALIVE
        self.died = asyncio.Event()
        self.served = 0

    def __getattr__(self, method: str) -> Any:
        return type("Method", (), {"remote": staticmethod(getattr(self, f"_{method}"))})

    async def _report(self) -> bytes:
        if self.hangs:
            await asyncio.Event().wait()
        if self.state != cluster.ALIVE:
            raise _unavailable()
        return encode(self.said)

    async def _stop(self, grace_s: float) -> None:
        pass

    async def _serve_jobs(self) -> None:
        self.served += 1
        await self.died.wait()
        raise _unavailable()


class FakeQueue:
    """Notes what it is told, unless it is down."""

    def __init__(self) -> None:
        self.down = False
        self.faults: dict[str, int] = {}  # how often a call for this worker or event fails, by a bug in the queue
        self.lost: list[tuple[str, str, bool]] = []
        self.events: list[str] = []

    async def lose_worker(self, worker_id: str, reason: str, *, crashed: bool) -> None:
        self._answer(worker_id)
        self.lost.append((worker_id, reason, crashed))

    async def announce(self, event: str, data: object) -> None:
        self._answer(event)
        self.events.append(event)

    def _answer(self, about: str) -> None:
        if self.down:
            raise QueueUnavailable("down")
        if self.faults.get(about, 0):
            self.faults[about] -= 1
            raise AIQueueError("the queue failed on lose_worker (KeyError)")


class Bench:
    """A pool of one worker that an earlier manager started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue, self.worker = FakeQueue(), FakeWorker()
        self.ended: list[Any] = []
        self.started: list[str] = []
        settings = Settings(
            providers={"a": {"kind": "simulated"}},
            pools={"p": {"providers": ["a"], "workers": 1, "health_check_interval_ms": 100}},
        )
        monkeypatch.setattr(cluster, "find", lambda name, namespace: self.worker)
        monkeypatch.setattr(cluster, "is_gone", lambda name, namespace: False)
        monkeypatch.setattr(cluster, "state_of", lambda actor: actor.state)
        monkeypatch.setattr(cluster, "end_actor", self.ended.append)
        self.dead_nodes: set[str] = set()
        monkeypatch.setattr(cluster, "nodes", lambda: cluster.Nodes(frozenset(self.dead_nodes), {}))
        monkeypatch.setattr(WorkerPool, "_start", lambda pool, name: self.started.append(name))
        monkeypatch.setattr(worker_pool, "_RETRY_S", 0.01)
        self.pool = WorkerPool(settings, "p", self.queue)  # type: ignore[arg-type]  # all that it asks of it

    def begin(self) -> None:
        self.pool.begin([_NAME], again=True)

    async def spoken(self) -> None:
        await until(lambda: self.pool.roster.members[_NAME].worker_id)


def _unavailable() -> ActorUnavailableError:
    return ActorUnavailableError("gone for a moment", b"\0" * 16)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    bench = Bench(monkeypatch)
    yield bench
    for task in bench.pool._tasks:
        task.cancel()


async def test_an_adopted_worker_that_hangs_is_ended_and_replaced(bench: Bench) -> None:
    bench.worker.hangs = True
    bench.begin()
    await until(lambda: bench.started)
    await until(lambda: bench.ended == [bench.worker])
    assert _NAME not in bench.pool.roster.members
    assert bench.queue.events == ["worker-pool:worker-unhealthy"]


async def test_an_adopted_worker_that_waits_for_room_is_left_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.worker.hangs, bench.worker.state = True, "PENDING_CREATION"
    looks: list[str] = []
    see: Callable[[Any], str] = cluster.state_of

    def look(actor: Any) -> str:
        looks.append(see(actor))
        return looks[-1]

    monkeypatch.setattr(cluster, "state_of", look)
    bench.begin()
    await until(lambda: len(looks) > 5)
    assert (bench.ended, bench.started) == ([], [])


async def test_a_hung_worker_is_ended_while_the_queue_is_down_and_given_back_when_it_is_up(bench: Bench) -> None:
    bench.begin()
    await bench.spoken()
    bench.queue.down = bench.worker.hangs = True
    await until(lambda: bench.ended == [bench.worker])
    assert bench.queue.lost == []
    bench.queue.down = False
    await until(lambda: bench.queue.lost)
    assert bench.queue.lost == [("w0", "heartbeat: no answer to 3 checks of 0.1 s", True)]


async def test_what_a_dead_worker_held_is_given_back_before_there_is_room_for_the_next(bench: Bench) -> None:
    bench.begin()
    await bench.spoken()
    bench.worker.state = cluster.RESTARTING
    bench.worker.died.set()
    await until(lambda: bench.queue.lost)
    assert bench.queue.lost == [("w0", "its process died", True)]
    assert bench.pool.roster.size == 1, "its place is kept"
    assert bench.ended == []


async def test_jobs_are_not_suspected_of_the_death_of_their_node(bench: Bench) -> None:
    bench.begin()
    await bench.spoken()
    bench.dead_nodes.add("n0")
    bench.worker.state = cluster.RESTARTING
    bench.worker.died.set()
    await until(lambda: bench.queue.lost)
    assert bench.queue.lost == [("w0", "its node n0 died", False)]


async def test_a_call_that_was_lost_gives_nothing_back(bench: Bench) -> None:
    bench.begin()
    await bench.spoken()
    bench.worker.died.set()  # so the call says; but the process is there and answers
    await until(lambda: bench.worker.served > 3)
    assert (bench.queue.lost, bench.ended) == ([], [])


async def test_a_worker_on_a_node_that_is_newer_than_the_list_of_nodes_is_not_dead(bench: Bench) -> None:
    bench.begin()
    await bench.spoken()
    bench.pool.look_at(cluster.Nodes(dead=frozenset({"n9"}), draining={}))
    assert bench.pool.roster.members[_NAME].worker_id == "w0"
    bench.pool.look_at(cluster.Nodes(dead=frozenset({"n0"}), draining={}))
    await until(lambda: bench.queue.lost == [("w0", "its node n0 died", False)])


async def test_a_pool_that_had_shrunk_to_none_stays_so_under_a_new_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    settings = Settings(providers={"a": {"kind": "simulated"}}, pools={"p": {"providers": ["a"], "min_workers": 0}})
    for again, size in ((True, 0), (False, 10)):
        pool = WorkerPool(settings, "p", bench.queue)  # type: ignore[arg-type]  # all that it asks of it
        pool.begin([], again=again)
        assert pool.roster.size == size
        for task in pool._tasks:
            task.cancel()


# --- errors that nobody expects ---


class Failing:
    """Stands in for a function of Ray's: raises as often as it is told, then does what that does."""

    def __init__(self, does: Callable[..., Any], times: int) -> None:
        self._does, self.left = does, times

    def __call__(self, *args: Any) -> Any:
        if self.left:
            self.left -= 1
            raise RpcError("the control store does not answer")
        return self._does(*args)


@pytest.mark.parametrize(("faults", "told"), [(2, ["w0", "w9"]), (1_000, ["w9"])])
async def test_a_message_that_the_queue_fails_on_keeps_no_later_one_back(
    bench: Bench, faults: int, told: list[str]
) -> None:
    bench.begin()
    await bench.spoken()
    bench.queue.faults["w0"] = faults
    bench.pool._carry_out([GiveBack("w0", "gone", crashed=True), GiveBack("w9", "gone too", crashed=True)])
    await until(lambda: "w9" in [worker for worker, _, _ in bench.queue.lost])
    assert [worker for worker, _, _ in bench.queue.lost] == told


@pytest.mark.parametrize("asked", ["is_gone", "state_of", "nodes"])
async def test_a_death_is_seen_though_ray_could_not_be_asked_about_it_at_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    bench.begin()
    await bench.spoken()
    monkeypatch.setattr(cluster, asked, failing := Failing(getattr(cluster, asked), 3))
    bench.worker.state = cluster.RESTARTING
    bench.worker.died.set()
    await until(lambda: bench.queue.lost)
    assert failing.left == 0
    assert bench.queue.lost == [("w0", "its process died", True)]


async def test_a_worker_that_hangs_is_ended_though_ray_could_not_be_asked_about_it_at_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.worker.hangs = True
    monkeypatch.setattr(cluster, "state_of", failing := Failing(cluster.state_of, 3))
    bench.begin()
    await until(lambda: bench.ended == [bench.worker])
    assert failing.left == 0


async def test_a_worker_whose_end_fails_is_ended_by_the_next_try(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin()
    await bench.spoken()
    monkeypatch.setattr(cluster, "end_actor", failing := Failing(cluster.end_actor, 3))
    bench.pool._carry_out(bench.pool.roster.replace(_NAME, "its node is being drained", hard=False, limit_s=0.0))
    await until(lambda: bench.ended == [bench.worker])
    await until(lambda: _NAME not in bench.pool.roster.members)
    assert failing.left == 0


async def test_a_stop_ends_every_worker_though_one_can_not_be_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.begin()
    other = FakeWorker("w1")
    bench.pool._actors["aiqueue-worker-p-1"] = other
    monkeypatch.setattr(cluster, "end_actor", Failing(cluster.end_actor, 1))
    with pytest.raises(RpcError, match="control store"):
        await bench.pool.stop(0.0)
    assert bench.ended == [other]
