"""What the pool manager does about workers that hang, die without room, or must go while the queue is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import RpcError

from actors import cluster
from actors.worker_pool import WorkerPool
from aiqueue.config import Settings
from aiqueue.scaling import GiveBack
from tests.tools.pool_bench import NAME, Bench, FakeWorker
from tests.tools.turns import turns, until


async def test_an_adopted_worker_that_hangs_is_ended_and_replaced(bench: Bench) -> None:
    bench.worker.hangs = True
    bench.begin()
    await until(lambda: bench.started)
    await until(lambda: bench.ended == [bench.worker])
    assert NAME not in bench.pool.roster.members
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
    assert bench.pool.roster.members[NAME].worker_id == "w0"
    bench.pool.look_at(cluster.Nodes(dead=frozenset({"n0"}), draining={}))
    await until(lambda: bench.queue.lost == [("w0", "its node n0 died", False)])


async def test_a_pool_that_had_shrunk_to_none_stays_so_under_a_new_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    settings = Settings(providers={"a": {"kind": "simulated"}}, pools={"p": {"providers": ["a"], "min_workers": 0}})
    for again, size in ((True, 0), (False, 10)):
        pool = WorkerPool(settings, "p", bench.queue)  # type: ignore[arg-type]  # all that it asks of it
        pool.begin({}, again=again)
        assert pool.roster.size == size
        for task in pool._tasks:
            task.cancel()


async def test_an_adopted_worker_that_runs_with_other_settings_drains_and_is_replaced(bench: Bench) -> None:
    bench.worker.said.settings = "other"
    bench.begin()
    await until(lambda: bench.ended == [bench.worker])
    await until(lambda: NAME not in bench.pool.roster.members)
    assert bench.started == ["aiqueue-worker-p-1"]
    await until(lambda: bench.queue.lost)
    assert bench.queue.lost == [("w0", "it was stopped", False)]


@pytest.mark.parametrize("says", [True, False])
async def test_an_adopted_worker_with_the_same_settings_or_that_does_not_say_goes_on(bench: Bench, says: bool) -> None:
    bench.worker.said.settings = bench.pool._mark if says else ""
    bench.begin()
    await until(lambda: bench.worker.served)
    await turns()
    assert (bench.ended, bench.started) == ([], [])


# --- starts that take their time ---


class SlowRay:
    """Starts actors when it is let, each in the calling thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.asked: list[threading.Thread] = []
        monkeypatch.setattr(ray, "remote", lambda kind: self)

    def options(self, **options: object) -> SlowRay:
        return self

    def remote(self, *args: object) -> FakeWorker:
        self.asked.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert self.go_on.wait(60)
        return FakeWorker("slow")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Iterator[SlowRay]:
    """Return a Ray that is slow to start the one worker of the bench's pool."""
    slow = SlowRay(monkeypatch)
    monkeypatch.setattr(WorkerPool, "_start", bench.really_start)
    yield slow
    slow.go_on.set()


async def test_a_worker_that_ray_is_slow_to_start_holds_up_nobody_else(bench: Bench, slow: SlowRay) -> None:
    bench.pool.begin({}, again=False)
    await until(lambda: slow.asked)
    assert threading.main_thread() not in slow.asked
    started = asyncio.create_task(bench.pool.started())
    await turns()
    assert not started.done()
    slow.go_on.set()
    await started
    await until(lambda: [member.worker_id for member in bench.pool.roster.members.values()] == ["slow"])


async def test_a_worker_that_is_being_started_while_its_pool_stops_is_ended(bench: Bench, slow: SlowRay) -> None:
    bench.pool.begin({}, again=False)
    await until(lambda: slow.asked)
    stopping = asyncio.create_task(bench.pool.stop(0.0))
    await turns()
    slow.go_on.set()
    await stopping
    assert [worker.said.worker_id for worker in bench.ended] == ["slow"]
    assert bench.pool._tasks == set(), "nothing watches it"


async def test_a_worker_that_is_no_longer_wanted_once_it_is_started_is_ended(bench: Bench, slow: SlowRay) -> None:
    bench.pool.begin({}, again=False)
    await until(lambda: slow.asked)
    bench.pool._carry_out(bench.pool.roster.resize(0, {}, now=0.0))
    await until(lambda: not bench.pool.roster.members)
    slow.go_on.set()
    await until(lambda: bench.ended)
    assert bench.pool._actors == {}


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
    bench.pool._carry_out(bench.pool.roster.replace(NAME, "its node is being drained", hard=False, limit_s=0.0))
    await until(lambda: bench.ended == [bench.worker])
    await until(lambda: NAME not in bench.pool.roster.members)
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
