"""Batches whose limits no client sends: each job would stop them, or none would ever run."""

from __future__ import annotations

import math

import pytest

from aiqueue.engine import Submit
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import header, submission
from tests.tools.service_harness import ServiceHarness


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(
    "limit",
    [{"max_concurrency": -1}, {"max_concurrency": 2**31}]
    + [{"max_failed_ratio": ratio} for ratio in (math.nan, -0.1, 1.1, math.inf)],
    ids=str,
)
async def test_a_batch_with_an_impossible_limit_is_refused(limit: dict[str, float], prepared: bool) -> None:
    queue = ServiceHarness()
    if prepared:
        queue.service._intake.prepared_from = 1
    jobs = [submission(name, header(batch_id="b")) for name in "ac"]
    (refusal,) = await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("b", **limit))])
    assert refusal is not None
    assert refusal.kind == "invalid_input"
    assert f"{next(iter(limit))} is" in refusal.message
    assert not queue.service._engine.core.live
    await queue.service.close()


async def test_a_batch_that_was_accepted_with_such_a_limit_before_is_known_when_it_is_sent_again() -> None:
    queue = ServiceHarness()
    job = submission("a", header(batch_id="b"))
    assert await queue.service.submit([SubmitGroup([job], batch=BatchSpec("b"))]) == [None]
    again = Submit([SubmitGroup([job], batch=BatchSpec("b", max_concurrency=-1))], journaled={"a": True})
    assert queue.service._engine.handle(again, now=queue.clock.now()).reply == [None]
    await queue.service.close()
