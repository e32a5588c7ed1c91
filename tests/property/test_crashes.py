"""The whole system in one process, with the queue killed at random moments: no job lost, none run twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.client import coalescer, event_feed
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import QueueUnavailable
from aiqueue.journal import writer
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
        yield


#: After how many more commits, whether the next commit still reaches the disk, and how many turns of the loop later.
crashes = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 8)), max_size=4)


@settings(max_examples=150)
@given(crashes=crashes, callers=st.integers(1, 12), slots=st.integers(1, 6), singly=st.booleans())
def test_every_job_ends_once_and_runs_once_however_often_the_queue_dies(
    crashes: list[tuple[int, bool, int]], callers: int, slots: int, singly: bool
) -> None:
    asyncio.run(_live_through(crashes, callers, slots, singly))


async def _live_through(crashes: list[tuple[int, bool, int]], callers: int, slots: int, singly: bool) -> None:
    async with asyncio.timeout(30.0), ClientHarness() as system:
        client = await system.client()
        await system.work(slots)
        waits = [
            asyncio.create_task(client.submit_job_with_callback(chat(f"job {number}")) if singly else _both(client))
            for number in range(callers)
        ]
        everyone = asyncio.gather(*waits)
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
        await _check(system)


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
