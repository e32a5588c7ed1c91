"""When the service ticks, on the loop that actors run on: a timer of uvloop's that is due at once is no timer."""

from __future__ import annotations

import asyncio

import uvloop

from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns


def test_a_queue_starts_with_what_came_due_while_it_was_down() -> None:
    """A restart announces itself, which is a change, before the tick for what is due has come."""

    async def run() -> str:
        before = ServiceHarness()
        await before.submit("a", delay_ms=1_000)
        survivor = before.memory.crash()
        await before.service.close()
        before.clock.advance(60.0)
        queue = ServiceHarness(before.settings, survivor, restarted=True, clock=before.clock)
        await queue.submit("b")  # a change too
        while (status := (await queue.view("a")).status) == "scheduled":
            await turns(1)
        await queue.service.close()
        return status

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == "queued"
