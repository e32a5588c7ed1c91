"""The end of a system, which goes on whoever began it: no cluster, and no pools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RpcError

from actors import cluster, pool_manager
from actors.pool_manager import PoolManager
from actors.watchdog import Watchdog
from actors.worker_pool import WorkerPool
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.config import Settings
from aiqueue.errors import QueueUnavailable
from tests.tools.turns import turns, until

_KEEP_STARTING = PoolManager.keep_starting


class Actor:
    """An actor's handle: notes its calls, and answers them when it is let."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answers = asyncio.Event()

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *_: self._answer(method))

    def _answer(self, method: str) -> Any:
        self.calls.append(method)
        return asyncio.ensure_future(self.answers.wait())


@pytest.fixture
def queue() -> Actor:
    return Actor()


@pytest.fixture
def ended() -> list[object]:
    """Return what was ended, in order."""
    return []


@pytest.fixture
def myself() -> Actor:
    return Actor()


@pytest.fixture
async def manager(
    queue: Actor, myself: Actor, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PoolManager]:
    context = SimpleNamespace(was_current_actor_reconstructed=False, current_actor=myself)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(cluster, "names_in", lambda _: [])
    monkeypatch.setattr(cluster, "keep_room", lambda namespace, bundles: None)
    monkeypatch.setattr(cluster, "find", lambda *_: queue)
    monkeypatch.setattr(cluster, "end_actor", ended.append)
    monkeypatch.setattr(cluster, "nodes", lambda: cluster.Nodes(frozenset(), {}))
    monkeypatch.setattr(pool_manager, "least_cpus", lambda: 0.0)
    monkeypatch.setattr(WorkerPool, "_start", lambda *_: None)
    monkeypatch.setattr(PoolManager, "keep_starting", lambda _: asyncio.sleep(0))  # each test says when it starts
    settings = Settings(providers={"a": {"kind": "simulated"}}, pools={"p": {"providers": ["a"], "workers": 1}})
    manager = PoolManager(settings.model_dump_json())
    yield manager
    for loop in manager._loops:
        loop.cancel()


async def test_a_manager_starts_its_pools_though_no_call_reaches_it(
    manager: PoolManager, myself: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PoolManager, "keep_starting", _KEEP_STARTING)
    again = PoolManager(manager._settings.model_dump_json())
    await until(lambda: again._loops)
    assert myself.calls == [], "Ray fails a call to itself of an actor that it takes for one that restarts"
    for loop in again._loops:
        loop.cancel()


async def test_a_manager_that_is_told_to_stop_ends_the_queue_and_itself_though_its_caller_is_gone(
    manager: PoolManager, queue: Actor, myself: Actor, ended: list[object]
) -> None:
    await manager.start()
    caller = asyncio.create_task(manager.stop(0.0))
    await until(lambda: "close" in queue.calls)
    caller.cancel()
    with pytest.raises(QueueUnavailable, match="being stopped"):
        await manager.start()  # who starts it now waits for the next one
    queue.answers.set()
    await until(lambda: ended == [queue, myself])


async def test_who_stops_a_system_and_is_killed_meanwhile_has_ended_it_all_the_same(
    manager: PoolManager, queue: Actor, myself: Actor, ended: list[object]
) -> None:
    await manager.start()
    queue.answers.set()
    await manager.stop_within(0.0, 0.0)
    await until(lambda: ended == [queue, myself])


async def test_a_manager_whose_queue_is_gone_for_good_ends_its_system(
    manager: PoolManager, myself: Actor, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(watchdog: Watchdog) -> None:
        monkeypatch.setattr(cluster, "find", lambda *_: None)

    monkeypatch.setattr(Watchdog, "run", gone)
    await manager.start()
    await until(lambda: ended == [myself])


async def test_a_manager_that_can_not_give_room_back_ends_the_queue_and_itself(
    manager: PoolManager, queue: Actor, myself: Actor, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[object] = []

    def fail(namespace: str, bundles: list[object]) -> None:
        rooms.append(bundles)
        if len(rooms) > 1:
            raise RpcError("the control store does not answer")

    monkeypatch.setattr(cluster, "keep_room", fail)
    await manager.start()
    assert rooms == [[]], "what an earlier system asked for here is taken back"
    queue.answers.set()
    with pytest.raises(RpcError):
        await manager.stop(0.0)
    assert ended == [queue, myself]


async def test_a_worker_of_a_pool_that_is_no_longer_configured_is_ended_at_the_start(
    manager: PoolManager, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["aiqueue-worker-p-0", "aiqueue-worker-p-old-0", QUEUE_ACTOR_NAME, "another-program"]
    monkeypatch.setattr(cluster, "names_in", lambda _: names)
    monkeypatch.setattr(cluster, "find", lambda name, _: name)
    found: dict[str, object] = {}
    monkeypatch.setattr(WorkerPool, "begin", lambda _, workers, **how: found.update(workers))
    await manager.start()
    assert (ended, list(found)) == (names[1:2], names[:1])


async def test_a_ray_that_is_slow_to_answer_holds_up_no_other_call_to_the_manager(
    manager: PoolManager, queue: Actor, myself: Actor, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up: list[str] = []

    def watched(module: Any, name: str) -> None:
        does = getattr(module, name)

        def call(*args: Any) -> Any:
            if threading.current_thread() is threading.main_thread() and args != (myself,):  # the end, after all else
                held_up.append(name)
            return does(*args)

        monkeypatch.setattr(module, name, call)

    for name in ("names_in", "find", "keep_room", "end_actor"):
        watched(cluster, name)
    watched(pool_manager, "least_cpus")
    queue.answers.set()
    await manager.start()
    manager._pools["p"]._actors["aiqueue-worker-p-0"] = worker = Actor()
    await manager.stop(0.0)
    assert ended == [worker, queue, myself]
    assert held_up == []


async def test_of_two_stops_while_the_pools_start_both_return_when_all_has_ended(
    manager: PoolManager, queue: Actor, myself: Actor, ended: list[object]
) -> None:
    queue.answers.set()
    await asyncio.gather(manager.stop(0.0), manager.stop(0.0))
    assert ended == [queue, myself]


@pytest.mark.parametrize("again", ["start", "stop"])
async def test_who_starts_or_stops_the_system_itself_in_time_is_not_disturbed(
    manager: PoolManager, queue: Actor, ended: list[object], again: str
) -> None:
    await manager.start()
    queue.answers.set()
    await manager.stop_within(3_600.0, 0.0)
    handle = manager._stop_later
    assert handle is not None
    await (manager.start() if again == "start" else manager.stop(0.0))
    assert handle.cancelled()
    await turns(10)
    assert queue.calls == ([] if again == "start" else ["close"])
