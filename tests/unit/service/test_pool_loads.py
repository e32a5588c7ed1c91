"""What the queue tells the pool manager."""

from __future__ import annotations

from aiqueue.config import PoolConfig, ProviderConfig
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import encode
from aiqueue.scaling.load import PoolLoad, decode_loads
from aiqueue.testing.jobs import POOL, PROVIDER, completed, settings
from tests.tools.service_harness import ServiceHarness


def load_of(queue: ServiceHarness, pool: str = POOL) -> PoolLoad:
    """The load as it travels."""
    return decode_loads(encode(queue.service.pool_loads()))[pool]


async def test_waiting_jobs_are_counted_by_level_with_the_age_of_the_oldest() -> None:
    queue = ServiceHarness()
    await queue.submit("a", level=AIJobPriority.URGENT)
    queue.clock.advance(2.0)
    await queue.submit("b", "c", level=AIJobPriority.LOW)
    queue.clock.advance(1.0)
    load = load_of(queue)
    assert (load.queued, load.waited_s, load.depth) == ([1, 0, 0, 2], [3.0, 0.0, 0.0, 1.0], 3)
    await queue.service.close()


async def test_who_holds_what_and_how_long_jobs_took() -> None:
    queue = ServiceHarness()
    await queue.submit("a", "b", "c")
    await queue.claim(2, worker="w1")
    await queue.park(worker="w2", slots=0)
    queue.clock.advance(4.0)
    await queue.exchange(completed("a"), worker="w1", slots=2)
    load = load_of(queue)
    assert (load.running, load.held) == (2, {"w1": 2, "w2": 0})
    assert (load.completed, load.busy_s) == (1, 4.0)
    await queue.service.close()


async def test_what_a_gate_holds_back_calls_for_no_worker() -> None:
    limited = ProviderConfig(kind="simulated", gate={"max_concurrent": 3})
    queue = ServiceHarness(settings().model_copy(update={"providers": {PROVIDER: limited}}))
    await queue.submit(*(f"job-{number}" for number in range(10)))
    assert load_of(queue).depth == 3
    await queue.claim(2)
    assert load_of(queue).depth == 1
    await queue.service.close()


async def test_each_pool_has_its_own_load_and_one_without_jobs_has_none() -> None:
    other = {"providers": {**settings().providers, "other": ProviderConfig(kind="simulated")}}
    pools = {**settings().pools, "q": PoolConfig(providers=("other",))}
    queue = ServiceHarness(settings().model_copy(update={**other, "pools": pools}))
    await queue.submit("a")
    assert (load_of(queue).depth, load_of(queue, "q")) == (1, PoolLoad([0] * 4, [0.0] * 4))
    await queue.service.close()
