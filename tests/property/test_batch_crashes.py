"""Batches, chains and fan-ins with the queue killed at random moments: all end right, and no call is made twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.client import coalescer, event_feed
from aiqueue.errors import InvalidRequest, QueueUnavailable
from aiqueue.journal import writer
from aiqueue.orchestrator import AsyncAIJobOrchestrator, orchestrator
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import chat
from aiqueue.worker import loop
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


@pytest.fixture(autouse=True, scope="module")
def quick_retry() -> Iterator[None]:
    """Let everybody try again sooner than they do for a queue that restarts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coalescer, "_RETRY_S", (0.0, 0.0))
        patch.setattr(event_feed, "_RETRY_S", 0.0)
        patch.setattr(loop, "_RETRY_S", 0.0)
        patch.setattr(writer, "_RETRY_S", 0.001)
        patch.setattr(orchestrator, "_LOOK_S", (0.0, 0.0))
        yield


class AskingTransport:
    """Asks again what is harmless twice, as the transport over Ray does."""

    def __init__(self, inner: InProcessTransport) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._inner, name)
        if name not in ("batch", "batch_results", "get_jobs", "get_states"):
            return method

        async def ask(*args: Any, **more: Any) -> Any:
            while True:
                try:
                    return await method(*args, **more)
                except QueueUnavailable:
                    await asyncio.sleep(0)

        return ask


crashes = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 8)), max_size=4)


@settings(max_examples=100)
@given(
    crashes=crashes,
    size=st.integers(1, 12),
    limit=st.integers(1, 4),
    slots=st.integers(1, 6),
    bad=st.sets(st.integers(0, 11), max_size=3),
)
def test_all_end_right_and_nothing_runs_twice_however_often_the_queue_dies(
    crashes: list[tuple[int, bool, int]], size: int, limit: int, slots: int, bad: set[int]
) -> None:
    asyncio.run(_live_through(crashes, size, limit, slots, bad))


async def _live_through(crashes: list[tuple[int, bool, int]], size: int, limit: int, slots: int, bad: set[int]) -> None:
    async with asyncio.timeout(30.0), ClientHarness() as system:
        system.provider.behave = lambda request: _answer(system, request, bad)
        client = await system.client(AskingTransport(system.transport))  # type: ignore[arg-type]
        made = AsyncAIJobOrchestrator(client)
        await system.work(slots)
        everyone = asyncio.gather(_batch(made, size, limit, bad), _chain(made), _fan_in(made, client))
        for commits, reaches_disk, later in crashes:
            before = system.queue.memory.commits
            await until(
                lambda before=before, commits=commits: (
                    system.queue.memory.commits >= before + commits or everyone.done()
                )
            )
            if not reaches_disk:
                system.queue.memory.hold()
            await turns(later)
            await system.crash()
        await everyone
        assert set(Counter(call.job_id for call in system.provider.calls).values()) == {1}
        core = system.queue.service._engine.core
        assert not core.live
        assert not core.groups.live
        assert (sum(core.waiting), core.blocked) == (0, 0)


def _answer(system: ClientHarness, request: ProviderRequest, bad: set[int]) -> None:
    asked = str(request.body["messages"][-1]["content"])
    if asked in {f"row {number}" for number in bad}:
        raise InvalidRequest("Provider sim: 400", status=400)
    system.provider.text = f"<{asked}>"


async def _batch(made: AsyncAIJobOrchestrator, size: int, limit: int, bad: set[int]) -> None:
    batch_id = await made.submit_batch_job([chat(f"row {n}") for n in range(size)], max_concurrency=limit)
    found = [each async for each in made.iter_results(batch_id)]
    assert [each.index for each in found] == list(range(size))
    assert {each.index for each in found if each.job.error} == {n for n in bad if n < size}
    by_end = [each.index async for each in made.iter_results(batch_id, ordered=False)]
    assert sorted(by_end) == list(range(size))
    info = await made.wait_batch(batch_id)
    assert info.completed + info.failed == info.total == size


async def _chain(made: AsyncAIJobOrchestrator) -> None:
    chain = await made.create_job_chain([chat("a"), *[chat("{{previous.content}}")] * 3])
    assert (await made.wait_batch(chain.chain_id)).completed == 4


async def _fan_in(made: AsyncAIJobOrchestrator, client: Any) -> None:
    _, job_ids = await made.fan_out([chat(letter) for letter in "xyz"])
    last = await made.fan_in_job(job_ids, chat("{{results}}"))
    info = await client.wait(last)
    assert info.result.text == "<<x>\n\n<y>\n\n<z>>"
