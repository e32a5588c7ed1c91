"""What a client says to the queue, encoded and decoded, whatever carries the calls.

What is harmless twice (look-ups, cancels) is asked again while the queue restarts; nothing else is. The answer to a
repeat says what the calls did together: the one whose answer was lost may have been carried out.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiqueue import batch_protocol, protocol, versions
from aiqueue.batch_protocol import BatchCall, BatchView, ResultsCall, ResultsReply
from aiqueue.engine.schedule_records import SchedulesCall, SchedulesReply, decode_reply
from aiqueue.errors import IncompatibleVersion, QueueNotRunning, QueueUnavailable
from aiqueue.own_version import own_version
from aiqueue.protocol import (
    CancelReply,
    DeadLettersCall,
    DeadLettersReply,
    EventsCall,
    EventsReply,
    ExchangeCall,
    ExchangeReply,
    JobView,
    SubmitGroup,
    SubmitReply,
    Welcome,
)
from aiqueue.scaling.load import PoolLoad, decode_loads
from aiqueue.submit_format import encode_groups
from aiqueue.views import Stats, decode_stats

CALL_S = 10.0  #: a call that does not wait for anything has long been answered by then
PATIENCE_S = 60.0  #: with a queue that restarts; to load a million jobs takes ten seconds
_FIRST_WAIT_S = 0.1
_BATCH_S = 60.0  # to seal, or to retry, a hundred thousand jobs takes seconds
_POLL_MARGIN_S = 15.0  # beyond a long poll's own limit: a queue that hangs must not hang its callers


def understood(answer: bytes) -> Welcome:
    """Return what a queue answered to hello. Raises IncompatibleVersion."""
    welcome = protocol.decode_welcome(answer)
    if refusal := versions.refusal(own_version(), welcome.version):
        raise IncompatibleVersion(refusal)
    return welcome


class QueueCalls(ABC):
    """All calls to a queue; a subclass carries them."""

    def __init__(self, *, poll_limit_s: float = 60.0, patience_s: float = PATIENCE_S) -> None:
        self._poll_limit_s, self._patience_s = poll_limit_s, patience_s
        self.on_welcome: Callable[[Welcome], None] = lambda welcome: None
        self._met = False  # the queue: since then all calls were answered, so it is no other one

    @abstractmethod
    async def _carry(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        """Return the queue's answer. Raises QueueUnavailable when there was none within ``limit_s``."""

    async def _call(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        """As ``_carry``, with a queue that has been met. Raises IncompatibleVersion."""
        if not self._met:
            await self._meet(min(limit_s, CALL_S, self._patience_s))
        try:
            return await self._carry(method, *args, limit_s=limit_s)
        except QueueUnavailable:
            self._met = False  # what answers next may be of another release
            raise

    async def _meet(self, limit_s: float) -> None:
        try:
            await self.hello(limit_s=limit_s)
        except QueueUnavailable as error:
            error.was_sent = False
            raise

    async def hello(self, *, limit_s: float = CALL_S) -> Welcome:
        """Return what a client must know to begin. Raises IncompatibleVersion."""
        try:
            answer = await self._carry("hello", protocol.encode(own_version()), limit_s=limit_s)
        except Exception as error:
            if not isinstance(error.__cause__, TypeError):
                raise
            answer = await self._carry("hello", limit_s=limit_s)  # in protocol 0 it takes nothing
        welcome = understood(answer)
        self._met = True
        self.on_welcome(welcome)
        return welcome

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        """Accept groups, each whole or not at all."""
        return protocol.decode_submit_reply(await self._call("submit", encode_groups(groups), linger_s))

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        """A worker's long poll."""
        reply = await self._call("exchange", protocol.encode(call), limit_s=self._poll_limit_s)
        return protocol.decode_exchange_reply(reply)

    async def events(self, call: EventsCall) -> EventsReply:
        """A client's long poll."""
        reply = await self._call("events", protocol.encode(call), limit_s=call.wait_s + _POLL_MARGIN_S)
        return protocol.decode_events_reply(reply)

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        """Return jobs in the order of ``ids``."""
        return protocol.decode_views(await self._ask("get_jobs", protocol.encode(ids), with_payload))

    async def cancel(self, ids: Sequence[str]) -> list[CancelReply]:
        """Stop jobs."""
        sent = protocol.encode(ids)
        if (answer := await self._first_answer("cancel", sent)) is not None:
            return protocol.decode_cancel_replies(answer)
        replies = protocol.decode_cancel_replies(await self._ask("cancel", sent))
        for reply in replies:  # the call that got no answer may have been the one that stopped it
            reply.cancelled |= reply.status == "cancelled"
        return replies

    async def list_dead_letters(self, call: DeadLettersCall) -> DeadLettersReply:
        """Return dead letters, the newest first."""
        return protocol.decode_dead_letters_reply(await self._ask("list_dead_letters", protocol.encode(call)))

    async def delete_dead_letters(self, ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there."""
        sent, there = protocol.encode(ids), await self._dead_letters_of(ids)
        if (answer := await self._first_answer("delete_dead_letters", sent)) is not None:
            return protocol.decode_ids(answer)
        failed: Exception | None = None
        try:
            await self._ask("delete_dead_letters", sent)
        except Exception as error:  # as for a damaged row where no other dead letter is left
            failed = error
        gone = there - await self._dead_letters_of(ids)  # the call that got no answer may have been the one that did it
        if failed and not gone:
            raise failed
        return [job_id for job_id in dict.fromkeys(ids) if job_id in gone]

    async def schedules(self, call: SchedulesCall) -> SchedulesReply:
        """Add, list, pause, resume, remove or run schedules."""
        return decode_reply(await self._ask("schedules", protocol.encode(call)))

    async def get_states(self, ids: Sequence[str]) -> list[str]:
        """Return the states of jobs, in the order of ``ids``."""
        return protocol.decode_ids(await self._ask("get_states", protocol.encode(ids)))

    async def batch(self, call: BatchCall) -> BatchView:
        """Do to a batch what the call says and return it. The same call twice does it once."""
        return batch_protocol.decode_batch_view(await self._ask("batch", protocol.encode(call), limit_s=_BATCH_S))

    async def batch_results(self, call: ResultsCall) -> ResultsReply:
        """Return a page of a batch's results."""
        limit_s = call.wait_s + _BATCH_S
        return batch_protocol.decode_results_reply(
            await self._ask("batch_results", protocol.encode(call), limit_s=limit_s)
        )

    async def stats(self) -> Stats:
        """Return the queue's statistics."""
        return decode_stats(await self._ask("stats"))

    async def commit_waits_s(self, *, limit_s: float) -> float:
        """Return for how many seconds a commit has been waiting for the disk."""
        return float(await self._call("commit_waits_s", limit_s=limit_s))

    async def pool_loads(self) -> dict[str, PoolLoad]:
        """Return how much work there is, by pool."""
        return decode_loads(await self._call("pool_loads"))

    async def lose_worker(self, worker_id: str, reason: str, *, crashed: bool) -> None:
        """Tell the queue that a worker is dead; ``crashed``: its process ended by itself, so a job may be the cause."""
        await self._call("lose_worker", worker_id, reason, crashed)

    async def announce(self, name: str, data: Mapping[str, Any]) -> None:
        """Tell all who listen of something that is about no job. Raises ValueError for a name that is no event's."""
        if name not in protocol.ANNOUNCED:
            raise ValueError(f"unknown event {name!r}; there are: {', '.join(sorted(protocol.ANNOUNCED))}")
        await self._call("announce", name, protocol.encode(data))

    async def _first_answer(self, method: str, sent: bytes) -> Any:
        """Return the answer to a call that is made once; None if it was lost. Raises QueueNotRunning."""
        try:
            return await self._call(method, sent)
        except QueueNotRunning:
            raise
        except QueueUnavailable:
            return None

    async def _dead_letters_of(self, ids: Sequence[str]) -> set[str]:
        states = await self.get_states(ids)
        return {job_id for job_id, state in zip(ids, states, strict=True) if state == "dead_letter"}

    async def _ask(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        """As ``_call``, for what may be asked twice: goes on asking while the queue restarts."""
        loop = asyncio.get_running_loop()
        give_up_at, wait = loop.time() + self._patience_s, _FIRST_WAIT_S
        while True:
            try:
                return await self._call(method, *args, limit_s=limit_s)
            except QueueNotRunning:
                raise
            except QueueUnavailable:
                if loop.time() + wait > give_up_at:
                    raise
            await asyncio.sleep(wait)
            wait = min(1.0, wait * 2)
