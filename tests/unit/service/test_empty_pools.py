"""A pool that should have workers and has none is told, by the queue itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from aiqueue.levels import LEVELS
from aiqueue.protocol import EventsCall
from aiqueue.scaling import PoolLoad
from aiqueue.service.empty_pools import WITHOUT_WORKERS, EmptyPools
from aiqueue.testing.jobs import POOL
from tests.tools.service_harness import ServiceHarness

LONG, NOT_YET = 60.0, 59.0


def load(*, queued: int = 0, workers: int = 0) -> PoolLoad:
    waits = [queued, *[0] * (len(LEVELS) - 1)]
    return PoolLoad(waits, [0.0] * len(LEVELS), held={f"worker-{number}": 0 for number in range(workers)})


def test_a_pool_is_told_once_and_again_when_it_has_had_workers_in_between() -> None:
    pools = EmptyPools(["a"])
    assert [pools.look({"a": load()}, now=now) for now in (0.0, NOT_YET, LONG, LONG + 5)] == [[], [], ["a"], []]
    assert pools.names == ("a",)
    assert pools.look({"a": load(workers=1)}, now=70.0) == []
    assert pools.names == ()
    assert [pools.look({"a": load()}, now=now) for now in (80.0, 80.0 + NOT_YET, 80.0 + LONG)] == [[], [], ["a"]]


def test_a_pool_that_may_be_empty_should_have_workers_only_while_something_waits() -> None:
    pools = EmptyPools([])
    assert [pools.look({"a": load()}, now=now) for now in (0.0, 2 * LONG)] == [[], []]
    assert [pools.look({"a": load(queued=3)}, now=now) for now in (200.0, 200.0 + LONG)] == [[], ["a"]]
    assert pools.look({"a": load()}, now=300.0) == []
    assert pools.names == ()


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    made = ServiceHarness()
    yield made
    await made.service.close()


async def test_it_is_an_event_and_stands_in_the_statistics_and_in_hello(queue: ServiceHarness) -> None:
    await queue.submit("a")
    await queue.service.look_at_pools()
    assert not queue.service.welcome().pools_without_workers
    queue.clock.advance(LONG)
    await queue.service.look_at_pools()
    events = (await queue.service.events(EventsCall("client", 0, all_owners=True, wait_s=0.0))).events
    (told,) = [event for event in events if event.name == WITHOUT_WORKERS]
    assert msgspec.json.decode(told.data) == {"pool": POOL, "queued_jobs": 1}
    assert queue.service.welcome().pools_without_workers == (POOL,)
    (shown,) = queue.service.stats().adapter.pools
    assert (shown.pool, shown.workers, shown.without_workers) == (POOL, 0, True)
    assert await queue.claim() == ["a"]
    await queue.service.look_at_pools()
    (shown,) = queue.service.stats().adapter.pools
    assert (shown.workers, shown.without_workers) == (1, False)
