"""Waits for jobs of a batch that is still being sent: dropped, they vanish, and no event tells of it."""

from __future__ import annotations

import asyncio

import pytest

from aiqueue.batch_protocol import BatchCall
from aiqueue.client import event_feed
from aiqueue.errors import JobNotFound
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import header, submission
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients look again at once."""
    monkeypatch.setattr(event_feed, "_POLL_S", 0.01)


async def _sent(system: ClientHarness, *, owner: str) -> str:
    """Send a part of a batch, and do not seal it; return the id of its job."""
    job = submission(job_header=header(batch_id="open", owner=owner))
    part = SubmitGroup([job], batch=BatchSpec("open", is_open=True))
    assert await system.queue.service.submit([part]) == [None]
    return job.id


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "of another client"])
async def test_a_wait_for_a_job_of_a_batch_that_is_dropped_ends(is_own: bool) -> None:
    async with ClientHarness() as system:
        adapter = await system.client()
        job_id = await _sent(system, owner=adapter._client_id if is_own else "another")
        waiting = asyncio.create_task(adapter.wait(job_id))
        await system.polled()
        assert not waiting.done()
        await system.queue.service.batches.call(BatchCall("open", "drop"))
        await until(waiting.done)
        assert isinstance(waiting.exception(), JobNotFound)


async def test_a_wait_for_a_job_of_a_batch_that_is_sealed_ends_with_the_job() -> None:
    async with ClientHarness() as system:
        adapter = await system.client()
        job_id = await _sent(system, owner="another")
        waiting = asyncio.create_task(adapter.wait(job_id))
        await system.polled()
        await system.queue.service.batches.call(BatchCall("open", "seal", 1))
        await until(lambda: not adapter._feed._waiting.unsealed)  # it was looked up again, and not given up
        await system.work()
        assert (await waiting).status == "completed"
