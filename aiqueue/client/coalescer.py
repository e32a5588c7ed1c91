"""Submits of one turn of the event loop leave in one actor call.

What is submitted while a call is under way gathers for the next one, so the calls grow with the load; lists of many
jobs go beside each other. A call that got no answer is sent again with the same ids, marked as such: the queue then
looks its jobs up.

A group that can't be measured or encoded fails alone, before anything of its call is sent.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from aiqueue.call_size import MAX_CALL_BYTES, size_of_group
from aiqueue.client.headers import callers_key
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import (
    AIQueueError,
    BatchNotFound,
    DeadLetterNotFound,
    DuplicateBatch,
    DuplicateJob,
    FieldError,
    IdempotencyConflict,
    PayloadTooLarge,
    QueueFault,
    QueueFull,
    QueueUnavailable,
    RecordUnreadable,
    ValidationError,
)
from aiqueue.protocol import Event, Refusal, SubmitGroup, SubmitReply
from aiqueue.submit_format import encode_groups
from aiqueue.unsendable import unsendable

_log = logging.getLogger(__name__)
_MAX_CALLS = 3
_WORTH_A_CALL = 250  # jobs that leave beside a call under way; fewer wait for its answer and go together
_MAX_JOBS = 1_000  # of one call, unless a single group has more
_MAX_BYTES = 24 * 2**20  # the same
_RETRY_S = (0.1, 2.0)  # first and longest wait between tries
_UNSURE_S = 60.0  # for what may be on disk

_LINGER_S = 0.025  # how long an answer may wait for the result of a job whose submitter waits for it anyway


class _Entry(NamedTuple):
    group: SubmitGroup
    size: int  #: measured before it joins the line: what can't be measured must not stand at its head
    accepted: asyncio.Future[str | None]
    linger: bool
    since: float  #: by the loop's clock


class SubmitCoalescer:
    """Sends groups of jobs; each is accepted whole or not at all. ``on_events`` gets what answers bring along."""

    def __init__(
        self, transport: QueueTransport, on_events: Callable[[list[Event]], None], *, give_up_s: float = 60.0
    ) -> None:
        self._transport, self._on_events = transport, on_events
        self._give_up_s = give_up_s
        self._pending: deque[_Entry] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._lingering: set[asyncio.Task[None]] = set()
        self._flush_due = False
        # Calls carry the jobs of several callers: none of them may belong to the request that happened to come first,
        # or that request's end would cancel it for all.
        self._context = contextvars.copy_context()

    async def submit(self, group: SubmitGroup, *, linger: bool = False) -> str | None:
        """Return when ``group`` is on disk; raise what refused it, or QueueUnavailable after ``give_up_s``.

        One whose call got no answer is sent again for a minute: it may be on disk, and that is worth knowing.
        The answer is None, or the id of the job that was accepted before under the group's idempotency key.

        ``linger``: the caller waits for the result anyway, so the answer may come a moment later and bring it.
        """
        size = _measured(group)
        loop = asyncio.get_running_loop()
        entry = _Entry(group, size, loop.create_future(), linger, loop.time())
        self._pending.append(entry)
        if not self._flush_due:
            self._flush_due = True
            loop.call_soon(self._flush, context=self._context)
        return await entry.accepted

    async def drain(self) -> None:
        """Wait until all that was submitted has been sent and answered."""
        while self._pending or self._calls or self._lingering:
            if calls := self._calls | self._lingering:
                await asyncio.wait(calls)
            else:
                await asyncio.sleep(0)  # what was submitted in this very turn leaves at its end

    def _flush(self) -> None:
        self._flush_due = False
        while self._pending and (not self._calls or self._may_go_beside()):
            entries = self._take()
            # One at a time, and nobody waits behind it: to linger is for a client with little to do.
            linger = not self._lingering and not self._calls and all(entry.linger for entry in entries)
            under_way = self._lingering if linger else self._calls
            call = asyncio.create_task(self._send(entries, _LINGER_S if linger else 0.0))
            under_way.add(call)
            call.add_done_callback(self._sent)

    def _may_go_beside(self) -> bool:
        waiting = sum(len(entry.group.jobs) for entry in self._pending)
        return len(self._calls) < _MAX_CALLS and waiting >= _WORTH_A_CALL

    def _take(self) -> list[_Entry]:
        taken: list[_Entry] = []
        jobs = size = 0
        while self._pending:
            entry = self._pending[0]
            jobs, size = jobs + len(entry.group.jobs), size + entry.size
            if taken and (jobs > _MAX_JOBS or size > _MAX_BYTES):
                break
            taken.append(self._pending.popleft())
        return taken

    def _sent(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._lingering.discard(call)
        self._flush()

    async def _send(self, entries: list[_Entry], linger_s: float) -> None:
        try:
            reply = await self._submit_until_answered([entry.group for entry in entries], linger_s)
            self._tell(reply.events)
            _answer(entries, reply)
        except Exception as error:  # also of an answer that does not fit: who submitted must not wait for ever
            sound = entries if isinstance(error, QueueUnavailable) else _without_unsendable(entries)
            if 0 < len(sound) < len(entries):  # a call with the others was never encoded, so nothing of it was sent
                await self._send(sound, linger_s)
            else:
                _fail(sound, error)

    def _tell(self, events: list[Event]) -> None:
        try:
            self._on_events(events)
        except Exception:  # the jobs are accepted all the same
            _log.exception("the ends that came with an answer to submits can't be told")

    async def _submit_until_answered(self, groups: list[SubmitGroup], linger_s: float) -> SubmitReply:
        loop = asyncio.get_running_loop()
        began, patience_s = loop.time(), self._give_up_s
        wait, longest = _RETRY_S
        while True:
            try:
                return await self._transport.submit(groups, linger_s=linger_s)
            except QueueUnavailable as error:
                self._give_up_waiting(error, loop.time() + wait)
                if error.was_sent:
                    patience_s = max(patience_s, _UNSURE_S)
                    for group in groups:
                        group.maybe_known = True
                if loop.time() + wait > began + patience_s:
                    raise
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(longest, wait * 2)

    def _give_up_waiting(self, error: QueueUnavailable, until: float) -> None:
        """Fail those that will have waited for too long by then behind a call without an answer."""
        while self._pending and self._pending[0].since + self._give_up_s < until:
            _fail([self._pending.popleft()], error)


def _measured(group: SubmitGroup) -> int:
    """Return at most how many bytes a group takes in a call.

    Raises PayloadTooLarge for a group that is too large for one call, as it can't be accepted whole; ValidationError
    for one that can't be measured.
    """
    try:
        size = size_of_group(group)
        if len(group.jobs) < 2 or size <= MAX_CALL_BYTES or (size := len(encode_groups([group]))) <= MAX_CALL_BYTES:
            return size
    except Exception as error:  # whatever it is, it is this caller's alone
        raise _no_group(group, error) from error
    message = (
        f"have {size} bytes together, and at most {MAX_CALL_BYTES} are accepted whole: submit fewer at once, or "
        "use the orchestrator's submit_batch_job, which sends a batch in parts"
    )
    raise PayloadTooLarge([FieldError("jobs", message)])


def _without_unsendable(entries: list[_Entry]) -> list[_Entry]:
    """Fail each entry whose group can't be encoded; return the others."""
    sound: list[_Entry] = []
    for entry in entries:
        try:
            encode_groups([entry.group])
        except Exception as error:
            _fail([entry], _no_group(entry.group, error))
        else:
            sound.append(entry)
    return sound


def _no_group(group: SubmitGroup, error: Exception) -> ValidationError:
    found = unsendable(group) or FieldError("jobs", f"can't be sent: {type(error).__name__}: {error}")
    return ValidationError([found])


def _fail(entries: list[_Entry], error: Exception) -> None:
    for entry in entries:
        if not entry.accepted.done():
            entry.accepted.set_exception(error)


def _answer(entries: list[_Entry], reply: SubmitReply) -> None:
    for at, (entry, refusal) in enumerate(zip(entries, reply.groups, strict=True)):
        if entry.accepted.done():  # its caller has gone away
            continue
        if refusal is None:
            entry.accepted.set_result(reply.known.get(at))
        else:
            entry.accepted.set_exception(_error_of(refusal))


def _error_of(refusal: Refusal) -> AIQueueError:
    if refusal.kind == DuplicateJob.kind:
        return DuplicateJob(refusal.job_id)
    if refusal.kind == DuplicateBatch.kind:
        return DuplicateBatch(refusal.message)
    if refusal.kind == QueueFault.kind:
        return QueueFault(refusal.message)
    if refusal.kind == IdempotencyConflict.kind:
        return IdempotencyConflict(callers_key(refusal.message))
    if refusal.kind == QueueFull.kind:
        return QueueFull(refusal.message, refusal.retry_after_s)
    if refusal.kind == BatchNotFound.kind:
        return BatchNotFound(refusal.message)
    if refusal.kind == DeadLetterNotFound.kind:
        return DeadLetterNotFound(refusal.message)
    if refusal.kind == RecordUnreadable.kind:
        return RecordUnreadable(refusal.message)
    if refusal.kind == ValidationError.kind:
        where = f"job {refusal.job_id}" if refusal.job_id else "jobs"
        return ValidationError([FieldError(where, refusal.message)])
    return AIQueueError(refusal.message)
