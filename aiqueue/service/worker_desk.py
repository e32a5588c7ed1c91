"""What workers report and are given: their long polls, and the payloads of what they claim."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from aiqueue.engine import Exchange, LoseWorker, QueueEngine, Report
from aiqueue.engine.commands import Command
from aiqueue.engine.effects import Granted
from aiqueue.journal.base import Journal
from aiqueue.protocol import ExchangeCall, ExchangeReply
from aiqueue.service.claim_reader import Claimed, ClaimReader
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.parking import ParkedWorkers
from aiqueue.service.payload_cache import PayloadCache
from aiqueue.service.row_reads import RowReads
from aiqueue.service.waking import Waking

Step = Callable[[Command], tuple[Any, Committed]]


class WorkerDesk:
    """The workers of one queue. ``apply`` carries out a command and hands out what became ready by it, ``step`` only
    the former."""

    def __init__(
        self,
        apply: Step,
        step: Step,
        engine: QueueEngine,
        journal: Journal,
        clock: Clock,
        payloads: PayloadCache,
        commits: CommitPipeline,
        *,
        park_s: float,
    ) -> None:
        self._apply, self._engine = apply, engine
        self._park_s = park_s
        self.parked = ParkedWorkers()
        self._waking = Waking(engine, self.parked, step, clock)
        self.payloads = payloads
        self._reader = ClaimReader(payloads, RowReads(journal, engine.core.live, commits))

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        """Take a worker's outcomes and give it work; wait for some where there is none."""
        overtaken = self._engine.has_overtaken(call.worker_id, call.number)
        if not overtaken:
            self.parked.send_home(call.worker_id)
        slots = 0 if self.parked.is_dead(call.worker_id) else call.slots
        command = Exchange(
            call.worker_id,
            call.pool,
            slots,
            call.outcomes,
            call.running,
            draw=random.random(),
            urgent_slots=call.urgent_slots,
            most=call.most,
            number=call.number,
        )
        granted, committed = self._apply(command)
        # One that drains ends when it has the answers to its outcomes and its account.
        may_wait = slots or not (call.outcomes or (call.running is not None and not call.slots))
        if not granted and not overtaken and may_wait:
            grant = await self.parked.wait(call.worker_id, call.pool, self._park_s)
            if grant is not None:
                granted, committed = grant
        await asyncio.shield(committed)
        claimed = await self._claimed(call, granted)
        return ExchangeReply(claimed.jobs, granted.cancels, overtaken, claimed.more)

    async def lose(self, worker_id: str, reason: str, *, crashed: bool) -> int:
        """Take back what a dead worker held; return how many jobs that were. ``crashed``: see LoseWorker."""
        self.parked.declare_dead(worker_id)
        count, committed = self._apply(LoseWorker(worker_id, reason, crashed))
        await asyncio.shield(committed)
        return int(count)

    def wake(self) -> None:
        """Hand what is ready to the workers that wait."""
        self._waking.wake()

    def close(self) -> None:
        """Send all waiting polls home."""
        for worker_id in self.parked:
            self.parked.send_home(worker_id)

    async def _claimed(self, call: ExchangeCall, granted: Granted) -> Claimed:
        if not granted.claims:
            return Claimed()
        claimed = await self._reader.read(granted)
        if claimed.failed and self._engine.is_overtaken(call.worker_id, call.number):
            # The later call may have been given the same attempts, and have read what this one could not.
            claimed.more = True  # if not, the worker's next account brings them again
        elif claimed.failed:
            _, committed = self._apply(Report(call.worker_id, claimed.failed, draw=random.random()))
            await asyncio.shield(committed)
        return claimed
