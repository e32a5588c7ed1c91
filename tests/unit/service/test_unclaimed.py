"""Jobs that end without a worker leave no payload behind in memory."""

from __future__ import annotations

import pytest

from aiqueue.engine import Tick
from tests.tools.service_harness import ServiceHarness


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_the_payload_of_a_job_that_nobody_claimed_is_dropped(queue: ServiceHarness, end: str) -> None:
    await queue.submit("a", expires_in_ms=1_000)
    if end == "cancelled":
        await queue.service.cancel(["a"])
    else:
        queue.clock.advance(2.0)
        _, committed = queue.service._apply(Tick())
        await committed
    assert (await queue.view("a")).status == end
    assert queue.service._workers.payloads._kept == {}
