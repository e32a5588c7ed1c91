"""Calls that arrive late, twice or never, and answers that get lost: what Ray does when processes and nodes die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiqueue.batch_protocol import BatchCall, decode_batch_call
from aiqueue.client.calls import CALL_S, QueueCalls
from aiqueue.errors import AIQueueError, QueueSilent, QueueUnavailable
from aiqueue.protocol import ExchangeCall, ExchangeReply
from aiqueue.protocol import decode_exchange_reply as decode_reply
from aiqueue.service.answering import AnsweredCalls
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.simulation.loop import Node
from aiqueue.testing.simulation.world import World

_Answer = asyncio.Future[Any]


class RemoteFault(Exception):
    """What the queue's own code raised: Ray hands it to the caller."""


class Served(AnsweredCalls):
    """One life of the queue, as calls meet it."""

    def __init__(self, node: Node, service: QueueService) -> None:
        self.node, self.service = node, service
        self.pending: dict[_Answer, None] = {}

    def _open(self) -> QueueService:
        return self.service


class Network:
    """Between all who call the queue, and whatever life of it there is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: Served | None = None
        self.unlucky: dict[str, Callable[[], None]] = {}  #: workers whose next claims get lost, and what happens then
        self.on_batch_call: Callable[[BatchCall], None] = lambda call: None  #: as it arrives
        self.on_fault: Callable[[str, Exception], None] = lambda method, error: None

    def send(self, who: str, method: str, args: tuple[object, ...]) -> _Answer:
        """Send a call on its way; the future is done when an answer or an error comes back, perhaps never."""
        world, loop = self.world, self.world.loop
        answer: _Answer = loop.create_future()
        if world.strikes("lost call", 0.03):
            world.note(who, method, "call lost")
            world.later(world.delay_s(), _fail, answer, QueueUnavailable("the call was lost"))
            return answer
        late = world.draws.choice((1.0, 4.0, 20.0)) if world.strikes("late call", 0.02) else 0.0
        world.note(who, method, *(("late", late) if late else ()))
        world.later(world.delay_s() + late, self._arrive, who, method, args, answer)
        if world.strikes("call twice", 0.03):
            nobody: _Answer = loop.create_future()
            world.note(who, method, "twice")
            world.later(world.delay_s() + world.draws.choice((0.0, 1.0, 10.0)), self._arrive, who, method, args, nobody)
        return answer

    def drop(self, queue: Served) -> None:
        """The queue died: whoever waits for its answer is told so."""
        for answer in queue.pending:
            if not self.world.strikes("silence", 0.2):
                wait = self.world.delay_s()
                self.world.later(wait, _fail, answer, QueueUnavailable("the queue actor is restarting"))
        queue.pending.clear()

    def _arrive(self, who: str, method: str, args: tuple[object, ...], answer: _Answer) -> None:
        if self.queue is None:
            self.world.later(self.world.delay_s(), _fail, answer, QueueUnavailable("the queue actor is restarting"))
            return
        self.queue.pending[answer] = None
        if method == "batch" and isinstance(args[0], bytes):
            self.on_batch_call(decode_batch_call(args[0]))
        self.world.loop.spawn(self.queue.node, self._serve(self.queue, who, method, args, answer))

    async def _serve(self, queue: Served, who: str, method: str, args: tuple[object, ...], answer: _Answer) -> None:
        try:
            reply = await getattr(queue, method)(*args)
        except AIQueueError as error:
            self._back(queue, who, method, answer, _fail, error)
        except Exception as error:
            self.on_fault(method, error)
            self._back(queue, who, method, answer, _fail, _remote(error))
        else:
            self._back(queue, who, method, answer, _give, reply)

    def _back(
        self, queue: Served, who: str, method: str, answer: _Answer, give: Callable[[_Answer, Any], None], what: Any
    ) -> None:
        if not queue.node.alive:  # it ended itself during this call
            return
        queue.pending.pop(answer, None)
        world = self.world
        is_unlucky = method == "exchange" and who in self.unlucky and give is _give and bool(decode_reply(what).claims)
        if is_unlucky:
            self.unlucky.pop(who)()
        if is_unlucky or world.strikes("lost answer", 0.03):
            world.note(who, method, "answer lost")
            give, what = _fail, QueueUnavailable("the answer was lost")
        elif world.strikes("silence", 0.01):
            world.note(who, method, "silence")
            return
        # From here on it is on its way: the queue's death stops it no more.
        world.later(world.delay_s(), give, answer, what)


class SimulatedTransport(QueueCalls):
    """One caller's way to the queue."""

    def __init__(self, network: Network, who: str, *, poll_limit_s: float = 60.0) -> None:
        super().__init__(poll_limit_s=poll_limit_s)
        self._network, self._who = network, who

    async def _carry(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        answer = self._network.send(self._who, method, args)
        limit = self._network.world.loop.call_later(limit_s, _give_up, answer, method, limit_s)
        try:
            return await answer
        finally:
            limit.cancel()

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        """As the real one's, which must be able to say whatever jobs came to."""
        try:
            return await super().exchange(call)
        except (ValueError, TypeError, OverflowError) as error:
            self._network.world.violated("a worker's call can't be sent", type(error).__name__)
            raise

    async def lose(self, worker_id: str, reason: str, *, crashed: bool) -> None:
        """Tell the queue that a worker is dead, until it has heard."""
        while True:
            try:
                return await self.lose_worker(worker_id, reason, crashed=crashed)
            except (QueueUnavailable, RemoteFault):
                await asyncio.sleep(1.0)


def _remote(error: Exception) -> RemoteFault:
    fault = RemoteFault(f"{type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault


def _give_up(answer: _Answer, method: str, limit_s: float) -> None:
    _fail(answer, QueueSilent(f"the queue did not answer {method} within {limit_s:g} s"))


def _fail(answer: _Answer, error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()


def _give(answer: _Answer, reply: Any) -> None:
    if not answer.done():
        answer.set_result(reply)
