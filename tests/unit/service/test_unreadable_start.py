"""A queue that starts from a journal in which one row can't be decoded: it goes on without that row's job."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from aiqueue.protocol import BatchSpec, Need, SubmitGroup, decode_header, encode
from aiqueue.testing.jobs import completed, header, submission
from tests.tools.service_harness import ServiceHarness


async def with_jobs() -> ServiceHarness:
    """Return a queue with jobs that wait, one that runs, and a step that waits for another job of its chain."""
    queue = ServiceHarness()
    await queue.submit("runs")
    assert await queue.claim() == ["runs"]
    steps = header(batch_id="chain")
    child = replace(steps, index=1, needs=(Need("bad", ("previous",)),), on_error="fail")
    jobs = [submission("bad", replace(steps, index=0)), submission("child", child)]
    await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("chain", kind="chain"))])
    await queue.submit("good-1", "good-2")
    return queue


def spoil(queue: ServiceHarness, how: str) -> None:
    disk = queue.memory._disk
    seq = disk.seqs["bad"]
    if how == "header":
        disk.jobs[seq] = disk.jobs[seq]._replace(header=b"\xc1 no header")
    elif how == "text":
        header = disk.jobs[seq].header
        assert b"chain" in header
        disk.jobs[seq] = disk.jobs[seq]._replace(header=header.replace(b"chain", b"\xffhain"))
    elif how == "level":
        header = replace(decode_header(disk.jobs[seq].header), level=99)
        disk.jobs[seq] = disk.jobs[seq]._replace(header=encode(header))
    elif how == "time":
        header = replace(decode_header(disk.jobs[seq].header), run_at=math.nan)
        disk.jobs[seq] = disk.jobs[seq]._replace(header=encode(header))
    elif how == "progress":
        disk.states[seq] = ("queued", b"\xc1 no progress")
    else:
        disk.states[seq] = ("sleeping", disk.states[disk.seqs["runs"]][1])


@pytest.mark.parametrize("how", ["header", "text", "level", "time", "progress", "state"])
async def test_a_row_that_can_not_be_decoded_fails_its_job_and_the_queue_starts(how: str) -> None:
    queue = await with_jobs()
    spoil(queue, how)
    after = await queue.crashed()
    reply = await after.exchange(slots=8, running=[("runs", 1)])
    assert [claim.job_id for claim in reply.claims] == ["good-1", "good-2"]
    await after.exchange(*(completed(job_id) for job_id in ("runs", "good-1", "good-2")), slots=0)
    views = {job_id: await after.view(job_id) for job_id in ("runs", "good-1", "good-2", "bad", "child")}
    assert [view.status for view in views.values()] == [*["completed"] * 3, "failed", "failed"]
    failures = [views[job_id].failure for job_id in ("bad", "child")]
    assert [failure and failure.kind for failure in failures] == ["record_unreadable", "dependency_failed"]
    again = await after.crashed()
    assert not again.service._engine.core.live
    await again.service.close()


async def test_what_was_learned_of_a_provider_and_can_not_be_decoded_is_forgotten() -> None:
    queue = await with_jobs()
    queue.memory._disk.gates["no key"] = b"\xc1 no gate"
    after = await queue.crashed()
    assert await after.claim(8, worker="worker-2") == ["bad", "good-1", "good-2"]
    await after.service.close()
