"""A queue with a bug that survives its restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiqueue.config import PoolConfig, ProviderConfig
from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import ExchangeCall, ExchangeReply
from aiqueue.testing.jobs import POOL, settings
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns

Bug = Callable[[Any], None]


class Queue:
    """A queue that comes back with the same bug each time its process ends."""

    def __init__(self, bug: Bug, *, heartbeat_s: float = 30.0) -> None:
        self.bug, self.ends = bug, 0
        config = settings(heartbeat_s=heartbeat_s)
        config.pools["other"] = PoolConfig(providers=("other",))
        config.providers["other"] = ProviderConfig(kind="simulated")
        self.now = ServiceHarness(config)
        bug(self.now.service._engine)

    async def ask(
        self,
        worker: str,
        *outcomes: Any,
        pool: str = POOL,
        slots: int = 4,
        running: list[tuple[str, int]] | None = None,
    ) -> ExchangeReply | None:
        """Let a worker report and ask for work once; None where the process ended, or the call was put off."""
        call = ExchangeCall(worker, pool, slots, list(outcomes), running)
        poll = asyncio.ensure_future(self.now.service.exchange(call))
        await turns(3)
        if not poll.done() and worker in list(self.now.service._workers.parked):
            self.now.service._workers.parked.send_home(worker)
        try:
            return await poll
        except QueueUnavailable:
            await self.back()
            return None

    async def back(self) -> None:
        """Begin again, if the process has ended."""
        if self.now.service._faults.failed:
            self.ends += 1
            before, survivor = self.now, self.now.memory.crash()
            await before.service.close()
            self.now = ServiceHarness(before.settings, survivor, clock=before.clock)
            self.bug(self.now.service._engine)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now.clock.advance(seconds)
