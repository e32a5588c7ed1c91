"""Workers that wait."""

from __future__ import annotations

import asyncio

from aiqueue.engine.effects import Granted
from aiqueue.service.parking import Grant, ParkedWorkers
from tests.tools.turns import turns


def grant() -> Grant:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return Granted(), done


async def test_a_worker_that_waits_gets_its_grant() -> None:
    parked = ParkedWorkers()
    wait = asyncio.create_task(parked.wait("w", "pool", 10.0))
    await turns()
    assert (parked.pools(), parked.of_pool("pool"), parked.of_pool("other")) == ({"pool"}, ["w"], [])
    given = grant()
    parked.answer("w", given)
    assert await wait is given
    assert parked.pools() == set()


async def test_workers_are_listed_by_how_long_they_wait() -> None:
    parked = ParkedWorkers()
    waits = [asyncio.create_task(parked.wait(name, "pool", 10.0)) for name in ("c", "a", "b")]
    await turns()
    assert parked.of_pool("pool") == ["c", "a", "b"]
    for name in parked:
        parked.send_home(name)
    assert await asyncio.gather(*waits) == [None, None, None]


async def test_a_wait_ends_without_a_grant_when_its_time_is_over() -> None:
    parked = ParkedWorkers()
    assert await parked.wait("w", "pool", 0.001) is None
    assert list(parked) == []


async def test_a_worker_whose_time_runs_out_in_this_very_turn_is_given_nothing() -> None:
    parked = ParkedWorkers()
    wait = asyncio.create_task(parked.wait("w", "pool", 0.0))
    while not wait.done():
        # What is granted to a worker that is listed must arrive: otherwise it holds jobs it never hears of.
        for worker in parked.of_pool("pool"):
            given = grant()
            parked.answer(worker, given)
            assert await wait is given
        await asyncio.sleep(0)
    assert parked.pools() == set()


async def test_a_second_wait_replaces_the_first_one() -> None:
    parked = ParkedWorkers()
    first = asyncio.create_task(parked.wait("w", "pool", 10.0))
    await turns()
    parked.send_home("w")
    second = asyncio.create_task(parked.wait("w", "pool", 10.0))
    assert await first is None
    await turns()
    assert parked.of_pool("pool") == ["w"], "the first one must not remove what the second one left"
    parked.send_home("w")
    assert await second is None
    parked.send_home("nobody")
