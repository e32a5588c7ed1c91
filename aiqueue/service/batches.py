"""What is asked of batches: how they stand, their results page by page, to stop, pause or retry them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiqueue.batch_protocol import BatchCall, BatchView, ResultsCall, ResultsReply
from aiqueue.engine import QueueEngine
from aiqueue.engine.batch_records import StoredBatch, decode_stored_batch
from aiqueue.engine.commands import Command, Steer
from aiqueue.engine.states import JobState
from aiqueue.errors import BatchNotFound
from aiqueue.journal.base import Journal
from aiqueue.protocol import BatchSpec, Event, Refusal, decode_spec
from aiqueue.service.batch_pages import BatchPages
from aiqueue.service.batch_rates import BatchRates
from aiqueue.service.batch_retries import BatchRetries, Found, error_of
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.drops import Drops, is_of_any
from aiqueue.service.holds import Holds
from aiqueue.service.look_ups import LookUps
from aiqueue.service.shown_times import show_batch

_STATUS = {"running": "processing", "stopping": "cancelling"}

Apply = Callable[[Command], tuple[Any, Committed]]


class BatchDesk:
    """Batches, chains and graphs of one queue."""

    def __init__(
        self,
        apply: Apply,
        engine: QueueEngine,
        journal: Journal,
        commits: CommitPipeline,
        clock: Clock,
        look_ups: LookUps,
        holds: Holds,
        drops: Drops,
    ) -> None:
        self._apply, self._engine, self._journal = apply, engine, journal
        self._commits, self._clock = commits, clock
        self._pages, self._view_of, self._reads = BatchPages(journal), look_ups.view, look_ups.reads
        self.retries = BatchRetries(apply, engine, journal, commits, self._pages, look_ups.decoded, self._find, holds)
        self._drops = drops
        self._rates = BatchRates()
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def call(self, call: BatchCall) -> BatchView:
        """Do what is asked and return the batch as it is then. Raises BatchNotFound, ValidationError."""
        changed = 0
        if call.action == "retry_failed":
            changed = await self.retries.retry(call)
        elif call.action in ("drop", "drop_run"):
            if await self._drop(call):
                return _gone(call.batch_id)
        elif call.action != "status":
            if call.batch_id in self._engine.core.groups.live:
                self._steer(call)
            self.retries.overrule(call)
        found = await self._find(call.batch_id)
        view = self._view(found)
        view.changed = changed
        await asyncio.shield(self._commits.settled())  # what is shown is on disk
        return view

    async def results(self, call: ResultsCall) -> ResultsReply:
        """Return a page of what the batch's jobs came to; wait for the first one up to ``call.wait_s``."""
        deadline = asyncio.get_running_loop().time() + call.wait_s
        while True:
            found = await self._find(call.batch_id)
            heard = self._expect(call.batch_id)
            await asyncio.shield(self._commits.settled())
            rows, after = await self._commits.read(self._pages.page, found.number, call)
            is_last = self._is_last(found.stored, after, ordered=call.ordered)
            left = deadline - asyncio.get_running_loop().time()
            if after > call.after or is_last or left <= 0:  # retention may have deleted all those that it passed
                self._forget(call.batch_id, heard)
                return ResultsReply([self._view_of(row) for row in rows], after, is_last)
            await asyncio.wait([heard], timeout=left)
            self._forget(call.batch_id, heard)

    async def states(self, ids: Sequence[str]) -> list[str]:
        """Return the states of jobs, in the order of ``ids``; empty for those unknown.

        A job whose state can't be read is "failed", as ``get_jobs`` shows it. Raises where nothing can be read.
        """
        live, dropping = self._engine.core.live, self._drops.under_way
        hides = self._drops.hides
        states = {job_id: "" if hides(job) else job.state.value for job_id in ids if (job := live.get(job_id))}
        await asyncio.shield(self._commits.settled())
        if ended := [job_id for job_id in ids if job_id not in states]:
            found, broken = await self._reads.states(ended)
            states |= found | dict.fromkeys(broken, JobState.FAILED.value)
            if dropping := [*dropping, *self._drops.under_way]:
                stored, _ = await self._reads.jobs(ended, with_result=False)
                states |= {job.id: "" for job in stored.values() if is_of_any(dropping, job.seq)}
        return [states.get(job_id, "") for job_id in ids]

    def observe(self, events: Iterable[Event]) -> None:
        """Wake the calls that wait for results."""
        if self._waiting:
            for event in events:
                for waiter in self._waiting.get(event.batch_id, ()) if event.batch_id else ():
                    if not waiter.done():
                        waiter.set_result(None)

    def close(self) -> None:
        """Wake the calls that wait for results: the queue is closed, and they are refused."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def tick(self) -> None:
        """Note how far each batch is, once a second."""
        self._rates.tick(self._engine.core.groups.live, now=self._clock.now())

    def _expect(self, batch_id: str) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(batch_id, set()).add(waiter)
        return waiter

    def _forget(self, batch_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(batch_id, set())
        waiters.discard(waiter)
        if not waiters:
            self._waiting.pop(batch_id, None)

    def _is_last(self, stored: StoredBatch, after: int, *, ordered: bool) -> bool:
        if stored.phase == "open":
            return False
        return after >= stored.total if ordered else bool(stored.ended_at) and after >= stored.ends

    async def _drop(self, call: BatchCall) -> bool:
        """Drop batches that were never sealed; return when nothing of them is left. Return False if one was sealed."""
        live = self._engine.core.groups.live
        ids = await self._unsealed_of(call.batch_id, call.token) if call.action == "drop_run" else [call.batch_id]
        groups = [live[batch_id] for batch_id in ids if batch_id in live]
        for batch_id in ids:
            if batch_id not in live or not live[batch_id].stored.dropped:
                self._steer(BatchCall(batch_id, "drop"))
        dropped = [group for group in groups if group.stored.dropped]
        for group in dropped:
            await self._drops.gone(group)
        await asyncio.shield(self._commits.settled())
        return len(dropped) == len(ids)

    async def _unsealed_of(self, run: str, next_batch: str) -> list[str]:
        """Return the batches of a run that were never sealed, also those that are being dropped.

        Return none if the next batch is there already: then this call is a repeat, and the open batches came after it.
        """
        live = self._engine.core.groups.live
        is_known = await self._commits.read(self._journal.batch, next_batch) is not None
        if is_known or next_batch in live:  # asked last: it may have come while the journal was read
            return []
        return [group.spec.id for group in live.values() if group.spec.run == run and group.stored.phase == "open"]

    def _steer(self, call: BatchCall) -> None:
        refusal, _ = self._apply(Steer(call.batch_id, call.action, call.count))
        if isinstance(refusal, Refusal):
            raise error_of(refusal)

    async def _find(self, batch_id: str) -> Found:
        group = self._engine.core.groups.live.get(batch_id)
        if group is not None and group.stored.dropped:
            raise BatchNotFound(batch_id)
        if group is not None:
            return Found(group.no, group.spec, group.stored, group)
        await asyncio.shield(self._commits.settled())
        row = await self._commits.read(self._journal.batch, batch_id)
        if row is None:
            raise BatchNotFound(batch_id)
        number, spec, stored = row
        return Found(number, decode_spec(spec), decode_stored_batch(stored), None)

    def _view(self, found: Found) -> BatchView:
        stored, group = found.stored, found.group
        ended = {state: count for state, count in stored.ended.items() if count}
        processing = group.in_flight if group else 0
        view = BatchView(
            found.spec,
            "paused" if stored.paused and stored.phase == "running" else _STATUS.get(stored.phase, stored.phase),
            stored.total,
            ended,
            processing,
            stored.total - sum(ended.values()) - processing,
            stored.created_at,
            stored.ended_at,
            self._rates.of(found.spec.id, stored, live=group is not None, now=self._clock.now()),
            dict(stored.errors),
            list(stored.first_errors),
            stored.reason,
        )
        return show_batch(view, self._engine.core.ahead_s)


def _gone(batch_id: str) -> BatchView:
    return BatchView(BatchSpec(batch_id), "dropped", 0, {}, 0, 0, 0.0, 0.0, 0.0, {}, [])
