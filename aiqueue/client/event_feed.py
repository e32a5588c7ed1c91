"""One long poll per client process on the queue's event log, and everyone in the process who waits on it.

After a lost call or a queue restart the poll goes on from its cursor. If the log no longer reaches back that far, the
jobs that somebody waits for are looked up instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable

from aiqueue.client.look_ups import look_up
from aiqueue.client.paging import JOBS_AT_ONCE
from aiqueue.client.subscriptions import Subscription, Subscriptions
from aiqueue.client.transport import QueueTransport
from aiqueue.client.waits import Waits
from aiqueue.errors import IncompatibleVersion, JobNotFound, QueueUnavailable
from aiqueue.protocol import END_EVENTS, END_STATES, Event, EventsCall, EventsReply, JobView
from aiqueue.views import JobInfo, event_info, job_info, tells_all

_log = logging.getLogger(__name__)
_WATCHED = 500  # ids named in each poll; for more, the ends of all jobs cost less
_RETRY_S = 0.3
_NO_NAME = "-"  # of no event
#: Between an answer and the next poll. Who just got a result may submit again: that call goes first, and the poll does
#: not get in its way at the queue. Under load more events share a poll.
_PAUSE_S = 0.0015
_POLL_S = 20.0

Ended = Callable[[JobInfo], None]


class EventFeed:
    """Starts to poll when somebody first waits or listens; ``stop`` ends it."""

    def __init__(self, transport: QueueTransport, client_id: str, *, after: int) -> None:
        self._transport, self._client_id = transport, client_id
        self._after = after
        self._waiting = Waits()
        #: Jobs to be looked up: with their end, where it was told and does not tell all, else None.
        self._unsure: dict[str, Event | None] = {}
        self._settling: asyncio.Task[None] | None = None
        self._listen: Callable[[Event], None] | None = None
        self._listened: frozenset[str] = frozenset()
        self._widened = asyncio.Event()
        self._look_again_at = 0.0  # by the loop's clock
        self._wider = 0  # how often more was wanted from the same cursor on
        self._task: asyncio.Task[None] | None = None
        self._asks_for_all = False  # the poll under way
        self._stopping = False
        self.subscriptions = Subscriptions(self._admit_soon)  #: the streams of this process

    def expect(self, job_id: str) -> asyncio.Future[JobInfo]:
        """Return a future of the end of a job that this process is about to submit."""
        future = self._waiting.add(job_id)
        self._start()
        return future

    def accepted(self, job_id: str) -> None:
        """Note that a job which this process waits for is on the queue's disk.

        If a look-up missed it before, it may have ended and been deleted by then, so it is looked up again.
        """
        if self._waiting.accept(job_id):
            self._look_up_soon(job_id)

    def forget(self, job_id: str, future: asyncio.Future[JobInfo]) -> None:
        """Wait no more."""
        self._waiting.drop(job_id, future)

    async def join(self, job_ids: Iterable[str]) -> list[asyncio.Future[JobInfo]]:
        """Return futures of the ends of jobs that may be anyone's and may have ended already.

        Raises JobNotFound for one that the queue does not know.
        """
        ids = list(job_ids)
        futures = [self.expect(job_id) for job_id in ids]
        self._waiting.whole.update(ids)
        try:
            if foreign := await self._look_up(ids, all_known=True):
                self._waiting.foreign.update(foreign)
                self._widen()
                await self._look_up(foreign)  # one may have ended after the first look and before the wider poll
        except BaseException:
            for job_id, future in zip(ids, futures, strict=True):
                self.forget(job_id, future)
            raise
        return futures

    @property
    def listens(self) -> bool:
        """Whether somebody listens to other clients' jobs too."""
        return bool(self._listened)

    def listen(self, names: Iterable[str], listener: Callable[[Event], None]) -> None:
        """Hand every event of ``names`` to ``listener``, whoever's job it is about; the last call counts."""
        self._listened, self._listen = frozenset(names), listener
        self._widen()
        self._start()

    async def stop(self) -> None:
        """End the poll; whoever still waits gets QueueUnavailable."""
        self._stopping = True
        self.subscriptions.close()
        if tasks := [task for task in (self._task, self._settling) if task]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self._fail_all(QueueUnavailable("the client was stopped; the job goes on without it"))

    def _fail_all(self, error: Exception) -> None:
        self._unsure.clear()
        for job_id in list(self._waiting):
            self._waiting.fail(job_id, error)

    def _widen(self) -> None:
        """Let the poll under way count for nothing: it asks for less than is wanted now, from this cursor on."""
        self._wider += 1
        self._widened.set()

    def _start(self) -> None:
        """Poll, also where the program has ended the task that did, as one that cancels all its tasks."""
        if self._task is None or (self._task.done() and not self._stopping):
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                if joining := self.subscriptions.joining():
                    await self._admit(joining)
                    continue
                reply = await self._poll()
                if reply is None:
                    continue
                await self._move_to(reply)
            except Exception as error:
                # Whatever it was: without this task everyone in the process would wait for ever.
                if isinstance(error, IncompatibleVersion):  # the queue was replaced by one that tells no end
                    self._fail_all(error)
                    self.subscriptions.lost(self._after)  # each stream asks by itself, and is told
                _log.info(
                    "event feed: %s", error, exc_info=not isinstance(error, QueueUnavailable | IncompatibleVersion)
                )
                await asyncio.sleep(_RETRY_S)
                continue
            self.take(reply.events)
            self._look_again()
            await asyncio.sleep(_PAUSE_S)

    def _look_again(self) -> None:
        """Look up now and then the jobs whose batch was not sealed: if it is dropped, they vanish without an event."""
        now = asyncio.get_running_loop().time()
        if self._waiting.unsealed and now >= self._look_again_at:
            self._look_again_at = now + _POLL_S
            for job_id in self._waiting.unsealed:
                self._look_up_soon(job_id)

    async def _move_to(self, reply: EventsReply) -> None:
        if reply.gap:
            await self._look_up(list(self._waiting))
            self.subscriptions.lost(reply.after)
        self._after = reply.after

    def _admit_soon(self) -> None:
        """Let new streams join: at once if the poll under way brings all that they want, else before the next one."""
        if self._asks_for_all:
            self.subscriptions.join(self.subscriptions.joining(), self._after)
        else:
            self._widened.set()
            self._start()

    async def _admit(self, joining: Collection[Subscription]) -> None:
        """Let streams join at the log's end: what happened before it is not fetched for them, they ask for it."""
        while not self._wants_all():  # else the next poll brings what they want, from the same cursor on
            call = self._call(wait_s=0.0)
            if not (self._waiting or self._listened or self.subscriptions.any_joined()):
                call.names, call.watching, call.also = [_NO_NAME], [], []  # only the way to the end is wanted
            asked = self._wider
            reply = await self._transport.events(call)
            if self._wider != asked:
                return  # what somebody else has begun to wait for may be before its end
            await self._move_to(reply)
            self.take(reply.events)
            if not reply.events or reply.events[-1].number < reply.after:
                break
        self.subscriptions.join(joining, self._after)

    async def _poll(self) -> EventsReply | None:
        """Return the next events; None when what is wanted has grown meanwhile, so that the poll is out of date."""
        self._widened.clear()
        call = self._call(self._poll_s())
        self._asks_for_all = call.all_owners and not call.names
        poll = asyncio.ensure_future(self._transport.events(call))
        widened = asyncio.ensure_future(self._widened.wait())
        try:
            await asyncio.wait({poll, widened}, return_when=asyncio.FIRST_COMPLETED)
            return None if widened.done() else await poll
        finally:
            widened.cancel()
            if self._stopping:
                poll.cancel()
            elif not poll.done():
                poll.add_done_callback(_ignore)  # the next poll sends it home; cancelling it would be a call more

    def _poll_s(self) -> float:
        """Return for how long to wait for events: not longer than until jobs are looked up again."""
        left = self._look_again_at - asyncio.get_running_loop().time()
        return min(_POLL_S, max(0.0, left)) if self._waiting.unsealed else _POLL_S

    def _wants_all(self) -> bool:
        return self.subscriptions.want_all or "*" in self._listened

    def _call(self, wait_s: float) -> EventsCall:
        """Return the poll for what is wanted now: the ends of one's own jobs, and whatever others in here ask for."""
        jobs, names = self.subscriptions.wanted()
        if self._wants_all():
            return EventsCall(self._client_id, self._after, all_owners=True, wait_s=wait_s)
        watching = self._waiting.foreign | jobs if jobs else self._waiting.foreign
        everyones = len(watching) > _WATCHED
        return EventsCall(
            self._client_id,
            self._after,
            names=[] if jobs else [*END_EVENTS],
            all_owners=everyones,
            watching=[] if everyones else list(watching),
            also=[*names, *self._listened],
            wait_s=wait_s,
        )

    def take(self, events: Iterable[Event]) -> None:
        """Resolve whoever waits and tell whoever listens.

        An event that can't be read (a result that is none) ends the wait for its job with that error.
        """
        for event in events:
            self._end_wait(event, self._dispatch)

    def resolve(self, events: Iterable[Event]) -> None:
        """Resolve whoever waits for the end of a job. Listeners hear of the same events in their order, by the poll."""
        for event in events:
            if event.job_id in self._waiting:
                self._end_wait(event, self._ended)

    def _end_wait(self, event: Event, how: Callable[[Event], None]) -> None:
        try:
            how(event)
        except Exception as error:
            _log.exception("event feed: event %d can't be read", event.number)
            self._waiting.fail(event.job_id, error)

    def _dispatch(self, event: Event) -> None:
        if event.status in END_STATES and event.job_id in self._waiting:
            self._ended(event)
        if self.subscriptions:
            self.subscriptions.publish(event)
        if self._listen and (event.name in self._listened or "*" in self._listened):
            self._listen(event)

    def _ended(self, event: Event) -> None:
        waiting, job_id = self._waiting, event.job_id
        if tells_all(event) and (job_id in waiting.headers or job_id not in waiting.whole):
            self._show_end(event)
        else:
            self._look_up_soon(job_id, event)

    def _look_up_soon(self, job_id: str, end: Event | None = None) -> None:
        self._unsure[job_id] = end or self._unsure.get(job_id)
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())

    async def _settle(self) -> None:
        """Look up the jobs whose end does not tell all, so that a waiter sees the same job as a later look-up.

        A job that can't be looked up is shown as its end says.
        """
        while self._unsure:
            unsure = dict(self._unsure)
            try:
                await self._look_up(list(unsure))
            except Exception as error:
                # Whatever it was: without this task those that wait for these ends would wait for ever.
                _log.info("event feed: %s", error, exc_info=not isinstance(error, QueueUnavailable))
                await asyncio.sleep(_RETRY_S)
                continue
            for job_id, event in unsure.items():
                if self._unsure.get(job_id) is event:
                    del self._unsure[job_id]
                if event and job_id in self._waiting:  # deleted since, or not to be looked up
                    self._end_wait(event, self._show_end)

    def _show_end(self, event: Event) -> None:
        self._waiting.resolve(event_info(event, self._waiting.headers.get(event.job_id)))

    async def _look_up(self, ids: list[str], *, all_known: bool = False) -> list[str]:
        """Resolve those of ``ids`` that have ended; return those that must be watched from now on.

        The wait for a job on which the queue fails ends with that error, unless its end was told.
        """
        watched = []
        for at in range(0, len(ids), JOBS_AT_ONCE):
            page = ids[at : at + JOBS_AT_ONCE]
            # Before the look-up: a job may be accepted while that is under way.
            known = [self._waiting.is_known(job_id) for job_id in page]
            views = await look_up(self._transport, page, retry_s=_RETRY_S)
            for job_id, view, known_before in zip(page, views, known, strict=True):
                if isinstance(view, Exception):
                    if not self._unsure.get(job_id):
                        self._waiting.fail(job_id, view)
                elif view is None:
                    if all_known:
                        raise JobNotFound(job_id)
                    self._miss(job_id, known_before=known_before)
                elif view.status in END_STATES:
                    self._show(view)
                else:
                    self._waiting.show(view)
                    self.accepted(view.id)  # a later look-up that missed it may have been answered first
                    if view.header.owner != self._client_id and view.id not in self._waiting.foreign:
                        watched.append(view.id)
        return watched

    def _miss(self, job_id: str, *, known_before: bool) -> None:
        """The queue does not know a job: it deleted it while nothing was heard of it, or has yet to accept it."""
        if job_id not in self._waiting or self._unsure.get(job_id):
            return  # or its end was told
        if known_before:
            self._waiting.fail(job_id, JobNotFound(job_id))
        elif self._waiting.is_known(job_id):
            self._look_up_soon(job_id)
        else:
            self._waiting.miss(job_id)

    def _show(self, view: JobView) -> None:
        try:
            self._waiting.resolve(job_info(view))
        except Exception as error:  # a result that is none
            self._waiting.fail(view.id, error)


def _ignore(poll: asyncio.Future[EventsReply]) -> None:
    if not poll.cancelled():
        poll.exception()
