"""The whole system on one event loop, without Ray: client, queue and workers that speak msgpack to each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiqueue import batch_protocol, protocol
from aiqueue.batch_protocol import BatchCall, BatchView, ResultsCall, ResultsReply
from aiqueue.client.calls import understood
from aiqueue.engine.schedule_records import SchedulesCall, SchedulesReply, decode_call, decode_reply
from aiqueue.errors import ModelUnavailable, QueueUnavailable
from aiqueue.ids import new_id
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
from aiqueue.providers.base import Provider
from aiqueue.service.queue_service import QueueService
from aiqueue.submit_format import encode_groups, receive_in_parts
from aiqueue.testing.jobs import POOL
from aiqueue.views import Stats, decode_stats
from aiqueue.waiting import in_parts
from aiqueue.worker.loop import WorkerLoop
from aiqueue.worker.runner import JobRunner

_T = TypeVar("_T")


class InProcessTransport:
    """A ``QueueTransport`` and a ``WorkerQueue`` over a service in the same loop, through the real encoding.

    ``lose_calls`` and ``lose_answers`` make calls fail as a network does: before the queue saw them, or after.
    """

    def __init__(self, service: QueueService) -> None:
        self._service = service
        self.on_welcome: Callable[[Welcome], None] = lambda welcome: None
        self._under_way: dict[asyncio.Future[Any], str] = {}  # with the method each calls
        self._lost_calls: Counter[str] = Counter()
        self._lost_answers: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()  #: by method, lost ones too
        self.sent: list[ExchangeCall] = []  #: what workers said, in order

    # --- what a test does to it ---

    def lose_calls(self, method: str, count: int = 1) -> None:
        """Let the next ``count`` calls of ``method`` never arrive."""
        self._lost_calls[method] += count

    def lose_answers(self, method: str, count: int = 1) -> None:
        """Let the next ``count`` calls of ``method`` arrive and be carried out, and their answers get lost."""
        self._lost_answers[method] += count

    def restart_with(self, service: QueueService) -> None:
        """Put another service in place, as after a crash: calls under way get no answer."""
        self._service = service
        for call in self._under_way:
            call.cancel()

    def under_way(self, method: str) -> int:
        """Return how many calls of ``method`` have no answer yet."""
        return list(self._under_way.values()).count(method)

    # --- the protocols ---

    async def hello(self) -> Welcome:
        """Return what a client must know to begin."""
        welcome = understood(protocol.encode(await self._call("hello", self._welcome())))
        self.on_welcome(welcome)
        return welcome

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        """Accept groups, each whole or not at all."""
        sent = await in_parts(receive_in_parts(encode_groups(groups)))
        reply = await self._call("submit", self._service.submit_and_linger(sent.groups, linger_s))
        return protocol.decode_submit_reply(protocol.encode(sent.whole(reply)))

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        """A worker's long poll."""
        sent = protocol.decode_exchange_call(protocol.encode(call))
        self.sent.append(sent)
        reply = await self._call("exchange", self._service.exchange(sent))
        return protocol.decode_exchange_reply(protocol.encode(reply))

    async def events(self, call: EventsCall) -> EventsReply:
        """A client's long poll."""
        sent = protocol.decode_events_call(protocol.encode(call))
        reply = await self._call("events", self._service.events(sent))
        return protocol.decode_events_reply(protocol.encode(reply))

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        """Return jobs in the order of ``ids``."""
        sent = protocol.decode_ids(protocol.encode(ids))
        views = await self._call("get_jobs", self._service.get_jobs(sent, with_payload=with_payload))
        return protocol.decode_views(protocol.encode(views))

    async def cancel(self, ids: Sequence[str]) -> list[CancelReply]:
        """Stop jobs."""
        sent = protocol.decode_ids(protocol.encode(ids))
        return protocol.decode_cancel_replies(protocol.encode(await self._call("cancel", self._service.cancel(sent))))

    async def list_dead_letters(self, call: DeadLettersCall) -> DeadLettersReply:
        """Return dead letters, the newest first."""
        sent = protocol.decode_dead_letters_call(protocol.encode(call))
        reply = await self._call("list_dead_letters", self._service.dead_letters.find(sent))
        return protocol.decode_dead_letters_reply(protocol.encode(reply))

    async def delete_dead_letters(self, ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there."""
        sent = protocol.decode_ids(protocol.encode(ids))
        deleted = await self._call("delete_dead_letters", self._service.dead_letters.delete(sent))
        return protocol.decode_ids(protocol.encode(deleted))

    async def schedules(self, call: SchedulesCall) -> SchedulesReply:
        """Add, list, pause, resume, remove or run schedules."""
        sent = decode_call(protocol.encode(call))
        return decode_reply(protocol.encode(await self._call("schedules", self._service.schedules.answer(sent))))

    async def get_states(self, ids: Sequence[str]) -> list[str]:
        """Return the states of jobs, in the order of ``ids``."""
        sent = protocol.decode_ids(protocol.encode(ids))
        states = await self._call("get_states", self._service.batches.states(sent))
        return protocol.decode_ids(protocol.encode(states))

    async def batch(self, call: BatchCall) -> BatchView:
        """Do to a batch what the call says and return it."""
        sent = batch_protocol.decode_batch_call(protocol.encode(call))
        return batch_protocol.decode_batch_view(
            protocol.encode(await self._call("batch", self._service.batches.call(sent)))
        )

    async def batch_results(self, call: ResultsCall) -> ResultsReply:
        """Return a page of a batch's results."""
        sent = batch_protocol.decode_results_call(protocol.encode(call))
        reply = await self._call("batch_results", self._service.batches.results(sent))
        return batch_protocol.decode_results_reply(protocol.encode(reply))

    async def stats(self) -> Stats:
        """Return the queue's statistics."""
        return decode_stats(protocol.encode(await self._call("stats", self._stats())))

    async def announce(self, name: str, data: Mapping[str, Any]) -> None:
        """Tell all who listen of something that is about no job."""
        sent = protocol.decode_any(protocol.encode(data))
        await self._call("announce", self._service.announce(name, sent))

    async def _welcome(self) -> Welcome:
        return self._service.welcome()

    async def _stats(self) -> Stats:
        return await self._service.counted_stats()

    async def _call(self, method: str, answer: Awaitable[_T]) -> _T:
        self.calls[method] += 1
        # The queue carries a call out by itself; whoever made it may go away meanwhile.
        call = asyncio.ensure_future(answer)
        call.add_done_callback(_seen)
        if self._lost_calls[method]:
            self._lost_calls[method] -= 1
            call.cancel()
            raise QueueUnavailable(f"the call {method} was lost")
        self._under_way[call] = method
        try:
            given = await asyncio.shield(call)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise QueueUnavailable(f"the queue was restarted during {method}") from None
        finally:
            del self._under_way[call]
        if self._lost_answers[method]:
            self._lost_answers[method] -= 1
            raise QueueUnavailable(f"the answer of {method} was lost")
        return given


def _seen(call: asyncio.Future[Any]) -> None:
    """Drop the answer or error of a call whose caller has gone, as a network does."""
    if not call.cancelled():
        call.exception()


@asynccontextmanager
async def worker_beside(
    transport: InProcessTransport,
    providers: Mapping[str, Provider],
    *,
    slots: int = 4,
    pool: str = POOL,
    worker_id: str = "",
    max_result_bytes: int = 2**20,
) -> AsyncIterator[WorkerLoop]:
    """Run a worker with these providers, by name, while the block lasts; then let it end what it runs."""

    def provider_of(name: str) -> Provider:
        if name not in providers:
            raise ModelUnavailable(f"Provider {name} is not served by this worker's pool")
        return providers[name]

    runner = JobRunner(provider_of, max_result_bytes=max_result_bytes)
    loop = WorkerLoop(worker_id or new_id("worker"), pool, slots, queue=transport, runner=runner)
    working = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        await loop.stop(grace_s=5.0)
        await working
