"""The whole system in one process, with the queue killed at random moments: none lost, none run twice, all ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.client import coalescer, event_feed
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import InvalidRequest, QueueUnavailable
from aiqueue.journal import writer
from aiqueue.orchestrator import orchestrator
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from aiqueue.worker import loop
from tests.tools.asking import AskingTransport
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until

Crashes = list[tuple[int, bool, int]]

#: After how many more commits, whether the next commit still reaches the disk, and how many turns of the loop later.
crashes = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 8)), max_size=4)


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


async def live_through(system: ClientHarness, crashes: Crashes, everyone: asyncio.Future[list[None]]) -> None:
    """Kill the queue at these moments while ``everyone`` works, and let them come to their ends."""
    for commits, reaches_disk, later in crashes:
        before = system.queue.memory.commits
        await until(
            lambda before=before, commits=commits: system.queue.memory.commits >= before + commits or everyone.done()
        )
        if not reaches_disk:
            system.queue.memory.hold()
        await turns(later)
        await system.crash()
    await everyone


# --- single jobs ------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(crashes=crashes, callers=st.integers(1, 12), slots=st.integers(1, 6), singly=st.booleans())
def test_every_job_ends_once_and_runs_once_however_often_the_queue_dies(
    crashes: Crashes, callers: int, slots: int, singly: bool
) -> None:
    asyncio.run(_jobs(crashes, callers, slots, singly))


async def _jobs(crashes: Crashes, callers: int, slots: int, singly: bool) -> None:
    async with asyncio.timeout(120.0), ClientHarness() as system:
        client = await system.client()
        await system.work(slots)
        everyone = asyncio.gather(*(_one(client, number) if singly else _both(client) for number in range(callers)))
        await live_through(system, crashes, everyone)
        await _check(system)


async def _one(client: AsyncAIQueueAdapter, number: int) -> None:
    await client.submit_job_with_callback(chat(f"job {number}"))


async def _both(client: AsyncAIQueueAdapter) -> None:
    """Submit two jobs together, then wait for them."""
    job_ids = await client.submit_jobs([chat("a"), chat("b")])
    while True:
        try:
            infos = await client.wait_all(job_ids)
        except QueueUnavailable:  # a lookup is not made again by itself
            await asyncio.sleep(0)
        else:
            assert [info.status for info in infos] == ["completed"] * 2
            return


async def _check(system: ClientHarness) -> None:
    runs = Counter(call.job_id for call in system.provider.calls)
    assert set(runs.values()) <= {1}, "a restart of the queue repeats no call"
    stats = system.queue.service.stats().adapter
    assert (stats.total_jobs, stats.completed_jobs) == (len(runs), len(runs))
    assert (stats.queued_jobs, stats.processing_jobs, stats.scheduled_jobs) == (0, 0, 0)
    views = await system.queue.service.get_jobs(list(runs))
    assert {view and (view.status, view.retries, view.crashes) for view in views} <= {("completed", 0, 0)}


# --- batches, chains and fan-ins --------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    crashes=crashes,
    size=st.integers(1, 12),
    limit=st.integers(1, 4),
    slots=st.integers(1, 6),
    bad=st.sets(st.integers(0, 11), max_size=3),
)
def test_groups_end_right_and_nothing_runs_twice_however_often_the_queue_dies(
    crashes: Crashes, size: int, limit: int, slots: int, bad: set[int]
) -> None:
    asyncio.run(_groups(crashes, size, limit, slots, bad))


async def _groups(crashes: Crashes, size: int, limit: int, slots: int, bad: set[int]) -> None:
    async with asyncio.timeout(120.0), ClientHarness() as system:
        system.provider.behave = lambda request: _answer(system, request, bad)
        client = await system.client(AskingTransport(system.transport))  # type: ignore[arg-type]
        made = AsyncAIJobOrchestrator(client)
        await system.work(slots)
        everyone = asyncio.gather(_batch(made, size, limit, bad), _chain(made), _fan_in(made, client))
        await live_through(system, crashes, everyone)
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


async def _fan_in(made: AsyncAIJobOrchestrator, client: AsyncAIQueueAdapter) -> None:
    _, job_ids = await made.fan_out([chat(letter) for letter in "xyz"])
    info = await client.wait(await made.fan_in_job(job_ids, chat("{{results}}")))
    assert info.result is not None
    assert info.result.text == "<<x>\n\n<y>\n\n<z>>"
