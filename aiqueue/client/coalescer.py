"""Submits of one turn of the event loop leave in one actor call.

What is submitted while a call is under way gathers for the next one, so the calls grow with the load; lists of many
jobs go beside each other. A call that got no answer is sent again with the same ids, marked as such: the queue then
looks its jobs up.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque

from aiqueue.client.transport import QueueTransport
from aiqueue.errors import AIQueueError, DuplicateJob, QueueFull, QueueUnavailable
from aiqueue.protocol import Refusal, SubmitGroup

_MAX_CALLS = 3
_WORTH_A_CALL = 250  # jobs that leave beside a call under way; fewer wait for its answer and go together
_MAX_JOBS = 2_000  # of one call, unless a single group has more
_RETRY_S = (0.1, 2.0)  # first and longest wait between tries

_Entry = tuple[SubmitGroup, asyncio.Future[None]]


class SubmitCoalescer:
    """Sends groups of jobs; each is accepted whole or not at all."""

    def __init__(self, transport: QueueTransport, *, give_up_s: float = 60.0) -> None:
        self._transport = transport
        self._give_up_s = give_up_s
        self._pending: deque[_Entry] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._flush_due = False
        # Calls carry the jobs of several callers: none of them may belong to the request that happened to come first,
        # or that request's end would cancel it for all.
        self._context = contextvars.copy_context()

    async def submit(self, group: SubmitGroup) -> None:
        """Return when ``group`` is on disk; raise what refused it, or QueueUnavailable after ``give_up_s``."""
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[None] = loop.create_future()
        self._pending.append((group, accepted))
        if not self._flush_due:
            self._flush_due = True
            loop.call_soon(self._flush, context=self._context)
        await accepted

    async def drain(self) -> None:
        """Wait until all that was submitted has been sent and answered."""
        while self._pending or self._calls:
            if self._calls:
                await asyncio.wait(self._calls)
            else:
                await asyncio.sleep(0)  # what was submitted in this very turn leaves at its end

    def _flush(self) -> None:
        self._flush_due = False
        while self._pending and (not self._calls or self._may_go_beside()):
            call = asyncio.create_task(self._send(self._take()))
            self._calls.add(call)
            call.add_done_callback(self._sent)

    def _may_go_beside(self) -> bool:
        waiting = sum(len(group.jobs) for group, _ in self._pending)
        return len(self._calls) < _MAX_CALLS and waiting >= _WORTH_A_CALL

    def _take(self) -> list[_Entry]:
        taken: list[_Entry] = []
        jobs = 0
        while self._pending and (not taken or jobs + len(self._pending[0][0].jobs) <= _MAX_JOBS):
            entry = self._pending.popleft()
            taken.append(entry)
            jobs += len(entry[0].jobs)
        return taken

    def _sent(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._flush()

    async def _send(self, entries: list[_Entry]) -> None:
        try:
            refusals = await self._submit_until_answered([group for group, _ in entries])
        except Exception as error:
            for _, accepted in entries:
                if not accepted.done():
                    accepted.set_exception(error)
            return
        for (_, accepted), refusal in zip(entries, refusals, strict=True):
            if accepted.done():  # its caller has gone away
                continue
            if refusal is None:
                accepted.set_result(None)
            else:
                accepted.set_exception(_error_of(refusal))

    async def _submit_until_answered(self, groups: list[SubmitGroup]) -> list[Refusal | None]:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._give_up_s
        wait, longest = _RETRY_S
        while True:
            try:
                return await self._transport.submit(groups)
            except QueueUnavailable:
                if loop.time() + wait > give_up_at:
                    raise
            for group in groups:
                group.maybe_known = True
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(longest, wait * 2)


def _error_of(refusal: Refusal) -> AIQueueError:
    if refusal.kind == DuplicateJob.kind:
        return DuplicateJob(refusal.job_id)
    if refusal.kind == QueueFull.kind:
        return QueueFull(refusal.message, refusal.retry_after_s)
    return AIQueueError(refusal.message)
