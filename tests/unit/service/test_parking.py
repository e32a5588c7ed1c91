"""A grant and the end of a poll's time in one turn of the loop: whichever is first, the grant is not dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiqueue.engine.effects import Granted
from aiqueue.service.parking import ParkedWorkers
from aiqueue.waiting import done_within
from tests.tools.turns import turns


class HeldTimers(asyncio.SelectorEventLoop):
    """A loop whose timers fire when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[Any, ...]] = []

    def call_at(self, when, callback, *args, context=None):  # type: ignore[no-untyped-def]
        self.timers.append((callback, *args))
        return super().call_at(when + 10_000.0, callback, *args, context=context)

    def fire(self) -> None:
        """Let the newest timer's time be over in the turn that follows this one."""
        self.call_soon(*self.timers.pop())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("time_first", [False, True])
def test_a_grant_made_in_the_turn_in_which_the_time_is_over_reaches_its_worker(time_first: bool) -> None:
    loop = HeldTimers()
    parked, grant = ParkedWorkers(), (Granted(), loop.create_future())

    async def race() -> object:
        poll = asyncio.ensure_future(parked.wait("w", "pool", 30.0))
        await turns()
        assert loop.timers
        events = [loop.fire, lambda: loop.call_soon(parked.answer, "w", grant)]
        for happens in events if time_first else reversed(events):
            happens()
        return await poll

    try:
        assert loop.run_until_complete(race()) is grant
    finally:
        loop.close()


async def test_a_wait_for_what_is_never_done_ends_and_cancels_nothing() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert not await done_within(future, 0.0)
    assert not future.cancelled()
