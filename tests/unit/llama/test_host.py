"""Lending one model at a time: swaps wait for what runs, lasting faults are kept, cancelled waits leave nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiqueue.llama.affinity import AffinityRule
from aiqueue.llama.host import ModelHost
from tests.tools.turns import until


class FakeModel:
    """Knows its name and whether it was closed."""

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def close(self) -> None:
        self.closed = True


class Bench:
    """A host, and what it loaded."""

    def __init__(self) -> None:
        self.loaded: list[FakeModel] = []
        self.now = 0.0
        self.trouble: Exception | None = None
        rule = AffinityRule(most_passes=2, patience_s=10.0)
        self.host: ModelHost[FakeModel] = ModelHost(
            self._load, rule=rule, name="x", lasting=(ValueError,), clock=lambda: self.now
        )

    def _load(self, name: str) -> FakeModel:
        assert all(model.closed for model in self.loaded), "two models in memory"
        if name == "bad":
            raise ValueError("no such model")
        if self.trouble:
            raise self.trouble
        self.loaded.append(FakeModel(name))
        return self.loaded[-1]

    async def use(self, name: str, release: asyncio.Event) -> str:
        async with self.host.lend(name) as model:
            assert not model.closed
            await release.wait()
            assert not model.closed
            return model.name


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.host.close()


async def test_requests_for_one_model_share_it(bench: Bench) -> None:
    release = asyncio.Event()
    users = [asyncio.create_task(bench.use("a", release)) for _ in range(5)]
    release.set()
    assert await asyncio.gather(*users) == ["a"] * 5
    assert [model.name for model in bench.loaded] == ["a"]


async def test_another_model_is_loaded_when_the_last_user_of_this_one_is_done(bench: Bench) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    user = asyncio.create_task(bench.use("a", first))
    await until(lambda: bench.host.loaded == "a")
    other = asyncio.create_task(bench.use("b", second))
    passing = [asyncio.create_task(bench.use("a", first)) for _ in range(4)]
    await asyncio.sleep(0)
    first.set()
    await user
    second.set()
    assert await other == "b"
    assert await asyncio.gather(*passing) == ["a"] * 4
    assert [model.name for model in bench.loaded] == ["a", "b", "a"]  # two passed, two came after


async def test_a_model_that_does_not_load_fails_all_that_want_it_and_is_not_tried_again(bench: Bench) -> None:
    release = asyncio.Event()
    release.set()
    users = [asyncio.create_task(bench.use("bad", release)) for _ in range(3)]
    for user in users:
        with pytest.raises(ValueError, match="no such model"):
            await user
    with pytest.raises(ValueError, match="no such model"):
        await bench.use("bad", release)
    assert await bench.use("a", release) == "a"


async def test_a_model_that_could_not_be_loaded_for_a_moment_is_tried_again(bench: Bench) -> None:
    release = asyncio.Event()
    release.set()
    bench.trouble = ConnectionError("no route")
    users = [asyncio.create_task(bench.use("a", release)) for _ in range(3)]
    for user in users:
        with pytest.raises(ConnectionError, match="no route"):
            await user
    bench.trouble = None
    assert await bench.use("a", release) == "a"


async def test_a_wait_that_is_cancelled_blocks_nobody(bench: Bench) -> None:
    release = asyncio.Event()
    holder = asyncio.create_task(bench.use("a", release))
    await until(lambda: bench.host.loaded == "a")
    waiting = asyncio.create_task(bench.use("b", release))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    release.set()
    await holder
    assert await bench.use("a", release) == "a"
    assert [model.name for model in bench.loaded] == ["a"]


async def test_a_user_cancelled_in_the_moment_of_lending_gives_the_model_back(bench: Bench) -> None:
    release = asyncio.Event()
    release.set()
    await bench.use("a", release)
    user = asyncio.create_task(bench.use("a", asyncio.Event()))
    await asyncio.sleep(0)  # it has been admitted, and does not know
    user.cancel()
    await asyncio.gather(user, return_exceptions=True)
    assert await bench.use("b", release) == "b"
