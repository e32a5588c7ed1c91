"""The asynchronous client. `sync_adapter` has the same for programs without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from aiqueue.client import given, paging
from aiqueue.client.calls import PATIENCE_S
from aiqueue.client.coalescer import SubmitCoalescer
from aiqueue.client.dead_letters import DeadLetterClient
from aiqueue.client.event_feed import EventFeed
from aiqueue.client.event_stream import EventStream
from aiqueue.client.headers import DEFAULT_SCOPE, batch_spec, checked_options, group_of, header_fields, scoped_key
from aiqueue.client.listeners import Listener, Listeners
from aiqueue.client.long_lists import accept_in_parts
from aiqueue.client.schedules import ScheduleClient
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import FieldError, JobError, JobNotFound, StartError, ValidationError
from aiqueue.ids import ids_from, new_id, new_job_ids
from aiqueue.models import JobOptions
from aiqueue.protocol import SubmitGroup, Welcome
from aiqueue.results import JobResult
from aiqueue.validation import CheckedPayload, Payload, PayloadChecker, validate_options
from aiqueue.views import Cancellation, JobInfo, QueueStats, Stats, readable_info
from aiqueue.waiting import in_parts

_Part = TypeVar("_Part")


class Session(NamedTuple):
    """What a started adapter works with, for what is built on it."""

    transport: QueueTransport
    submit: Callable[[SubmitGroup], Awaitable[str | None]]  #: answers when the group is on disk
    checker: PayloadChecker
    owner: str
    default_retries: int


AnyPayload = Mapping[str, Any] | Payload
AnyOptions = Mapping[str, Any] | JobOptions | None


class AsyncAIQueueAdapter:
    """Submits jobs to a running system, waits for them and listens to it. Use it inside one event loop.

    Usable as an async context manager. ``aiqueue.connect_async()`` makes one that is started.
    ``patience_s``: how long a submit waits for a queue that restarts.
    """

    def __init__(self, transport: QueueTransport, *, patience_s: float = PATIENCE_S) -> None:
        self._transport, self._patience_s = transport, patience_s
        self._client_id, self._listeners = new_id("client"), Listeners(self._listen)
        self._coalescer: SubmitCoalescer | None = None
        self._feed: EventFeed | None = None
        self._checker: PayloadChecker | None = None
        self._default_retries = 0

    async def start(self) -> None:
        """Find the queue and learn what it can run. Raises QueueUnavailable if there is none."""
        welcome = await self._transport.hello()
        self._checker, self._default_retries = PayloadChecker(welcome), welcome.max_retries
        self._transport.on_welcome = self._welcomed
        self._feed = EventFeed(self._transport, self._client_id, after=welcome.last_event)
        self._coalescer = SubmitCoalescer(self._transport, self._feed.resolve, give_up_s=self._patience_s)
        self._listen()

    def _welcomed(self, welcome: Welcome) -> None:
        if self._checker:
            self._checker.renew(welcome)
        self._default_retries = welcome.max_retries

    async def stop(self) -> None:
        """Send what is still to be sent and let go. Jobs go on without this client."""
        if self._coalescer and self._feed:
            await self._coalescer.drain()
            await self._feed.stop()
        self._coalescer = self._feed = self._checker = None

    async def __aenter__(self) -> AsyncAIQueueAdapter:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def submit_job(self, payload: AnyPayload, options: AnyOptions = None, *, scope: str = DEFAULT_SCOPE) -> str:
        """Return the id of the job once it is on the queue's disk.

        ``scope`` says whose idempotency key it is, where one process speaks for several callers.
        Raises ValidationError (also for an unknown provider or model), DuplicateJob, QueueFull, QueueUnavailable, and
        IdempotencyConflict for a key that was used with another body.
        """
        group = self._prepare([self._started(self._checker).check(payload)], validate_options(options), scope=scope)
        return await self._accept(group) or group.jobs[0].id

    async def submit_jobs(
        self, payloads: Sequence[AnyPayload], options: AnyOptions = None, *, batch_id: str = ""
    ) -> list[str]:
        """Submit many jobs with the same options; return their ids in order.

        All are validated before the first is sent (``index`` in an error names the bad ones). Up to 1,000 jobs (20 MiB)
        and any number with a ``batch_id`` or an ``idempotency_key`` (32 MiB) are accepted whole or not at all. A longer
        list goes in parts, in order, a small one first so that work begins early; PartlySubmitted names those that were
        accepted if others were not: submit the rest again, or give the list a key (which is the whole list's) and send
        all of it again.
        """
        batch_id = given.text("batch_id", batch_id)
        checked = checked_options(self._started(self._checker), options, batch_id=batch_id)
        given.in_order("jobs", payloads)
        bodies = await in_parts(self._started(self._checker).check_in_parts(payloads))
        if checked.job_id is not None and len(bodies) != 1:
            message = f"names one job, but {'several are' if bodies else 'none is'} submitted"
            raise ValidationError([FieldError("options.job_id", message)])
        if checked.job_id is None and (batch_id or checked.idempotency_key):
            return await self._accept_once(bodies, checked, batch_id=batch_id)
        group = self._prepare(bodies, checked, batch_id)
        if group.batch and group.jobs:
            return [await self._accept(group) or group.jobs[0].id]
        return await accept_in_parts(group, self._accept)

    async def submit_batch(
        self,
        payloads: Sequence[AnyPayload],
        options: AnyOptions = None,
        *,
        idempotency_key: str | None = None,
        scope: str = DEFAULT_SCOPE,
    ) -> tuple[str, list[str]]:
        """Submit jobs as one batch, whole or not at all; return its id and, in order, those of its jobs.

        With the same key and the same jobs and options it is the first batch, whose ids are returned; with the same key
        and others, IdempotencyConflict. ``scope``: as for ``submit_job``.
        """
        checked = checked_options(self._started(self._checker), options, key=idempotency_key, scope=scope)
        given.in_order("jobs", payloads)
        bodies = await in_parts(self._started(self._checker).check_in_parts(payloads))
        if not bodies:
            raise ValidationError([FieldError("jobs", "is empty: a batch has at least one job")])
        ids = await self._accept_once(bodies, checked, idempotency_key, scope, prefix="batch")
        return _batch_of("batch", ids), ids

    async def check_jobs(self, payloads: Iterable[AnyPayload]) -> None:
        """Raise what ``submit_jobs`` would raise of these payloads; submit nothing."""
        await in_parts(self._started(self._checker).check_in_parts(payloads))

    async def submit_job_with_callback(
        self, payload: AnyPayload, options: AnyOptions = None, callback: Callable[[JobResult], Any] | None = None
    ) -> JobResult:
        """Submit a job, wait for its end and return its result (after giving it to ``callback``, if there is one).

        Raises what ``submit_job`` raises, and the JobError that ended the job.
        """
        group = self._prepare([self._started(self._checker).check(payload)], validate_options(options))
        job_id, known = group.jobs[0].id, group.maybe_known
        feed = self._started(self._feed)  # stop() may come in between
        ended = feed.expect(job_id)
        try:
            earlier = await self._accept(group, linger=True)
            feed.accepted(job_id)
            info = await (self.wait(earlier or job_id) if known or earlier else ended)
        finally:
            feed.forget(job_id, ended)
        result = _result_of(info)
        if callback is not None:
            callback(result)
        return result

    async def wait(self, job_id: str) -> JobInfo:
        """Wait until the job has ended, whoever submitted it. Raises JobNotFound."""
        return (await self.wait_all([given.job_id(job_id)]))[0]

    async def wait_all(self, job_ids: Sequence[str], on_end: Callable[[JobInfo], None] | None = None) -> list[JobInfo]:
        """Wait until all jobs have ended and return them in order; ``on_end`` is called as each one ends."""
        ids = given.job_ids(job_ids)
        feed = self._started(self._feed)
        futures = await feed.join(ids)
        if on_end:
            for future in futures:
                future.add_done_callback(
                    lambda ended: None if ended.cancelled() or ended.exception() else on_end(ended.result())
                )
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for job_id, future in zip(ids, futures, strict=True):
                feed.forget(job_id, future)

    async def get_job_status(self, job_id: str) -> JobInfo | None:
        """Return the job as it is on disk; None if it is not known."""
        return (await self.get_jobs([given.job_id(job_id)]))[0]

    async def get_jobs(self, job_ids: Sequence[str]) -> list[JobInfo | None]:
        """Return many jobs in the order of ``job_ids``."""
        views = await paging.get_jobs(self._transport, given.job_ids(job_ids))
        return [readable_info(view) if view else None for view in views]

    async def cancel_job(self, job_id: str) -> Cancellation:
        """Stop a job: at once if it waits, through its worker if it runs. Raises JobNotFound."""
        job_id = given.job_id(job_id)
        (reply,) = await self._transport.cancel([job_id])
        if not reply.status:
            raise JobNotFound(job_id)
        return Cancellation(cancelled=reply.cancelled, status=reply.status)

    @property
    def session(self) -> Session:
        """What this adapter works with. Raises StartError before ``start``."""
        checker, submit = self._started(self._checker), self._started(self._coalescer).submit
        return Session(self._transport, submit, checker, self._client_id, self._default_retries)

    @property
    def dead_letters(self) -> DeadLetterClient:
        """List, inspect, redrive and delete jobs that are out of attempts."""
        submit, check = self._started(self._coalescer).submit, self._started(self._checker).check
        return DeadLetterClient(self._transport, submit, check, self._client_id)

    @property
    def schedules(self) -> ScheduleClient:
        """Add, list, pause, resume, run and remove jobs that come again by a cron line."""
        return ScheduleClient(self._transport, self._started(self._checker), self._default_retries)

    async def get_stats(self) -> QueueStats:
        """Return the queue's statistics."""
        return (await self.get_system_stats()).adapter

    async def get_system_stats(self) -> Stats:
        """Return the queue's statistics and the orchestrator's, as ``GET /ai/stats`` does."""
        return await self._transport.stats()

    async def ping(self) -> Welcome:
        """Return what the queue says of itself, if it answers; raises QueueUnavailable."""
        return await self._transport.hello()

    def on(self, name: str, listener: Listener | None = None) -> Any:
        """Call ``listener`` (a function or a coroutine function) on every event called ``name``, of any client's job.

        Names are ``job:submitted processing retried completed failed dead-letter cancelled expired``, ``gate:closed
        opened``, ``worker-pool:scaled-up scaled-down worker-unhealthy worker-replaced …``, ``batch:submitted ended``,
        ``queue:restarted``; wildcards ``job:*`` and so on, and ``*``. Also a decorator: ``@adapter.on("job:failed")``.
        """
        if listener is None:
            return lambda function: self.on(name, function) or function
        self._listeners.add(name, listener)
        self._listen()
        return None

    def once(self, name: str, listener: Listener | None = None) -> Any:
        """As ``on``, for the next such event alone. ``off`` undoes it as long as there was none."""
        if listener is None:
            return lambda function: self.once(name, function) or function
        self._listeners.add(name, listener, once=True)
        self._listen()
        return None

    def off(self, name: str, listener: Listener) -> None:
        """Undo ``on`` or ``once``. Raises ValidationError for an unknown name."""
        self._listeners.remove(name, listener)
        self._listen()

    def events(self, after: int | None = None, names: Collection[str] = (), job_id: str | None = None) -> EventStream:
        """Return an endless asynchronous iterator of events, with a ``Gap`` wherever the log no longer reaches back.

        ``after`` is the number of the last event already seen; None begins when the stream is opened or first asked.
        ``names`` and ``job_id`` choose. Raises ValidationError, also for an unknown name.
        """
        shared = self._started(self._feed).subscriptions
        job_ids = None if job_id is None else [given.job_id(job_id)]
        return EventStream(self._transport, shared, after=after, names=names, job_ids=job_ids)

    def _listen(self) -> None:
        if self._feed and (self._feed.listens or self._listeners.wanted()):
            self._feed.listen(self._listeners.wanted(), self._listeners.tell)

    async def _accept(self, group: SubmitGroup, *, linger: bool = False) -> str | None:
        """Return the id of the job that was accepted before under the same idempotency key, if there is one."""
        return await self._started(self._coalescer).submit(group, linger=linger)

    async def _accept_once(
        self,
        payloads: Sequence[CheckedPayload],
        options: JobOptions,
        key: str | None = None,
        scope: str = DEFAULT_SCOPE,
        *,
        prefix: str = "",
        batch_id: str = "",
    ) -> list[str]:
        """Submit jobs in one group and return their ids: those of the first time, if the key was used before.

        The queue keeps the first job's id with the key; the other ids, and the batch's, follow from it.
        """
        if not payloads:
            return []
        ids = ids_from(new_job_ids(1)[0], len(payloads))
        batch_id = batch_id or (_batch_of(prefix, ids) if prefix else "")
        group = self._prepare(payloads, options, batch_id, ids=ids, key=key, scope=scope)
        group.maybe_known = False  # a key is looked up anyway
        earlier = await self._accept(group)
        return ids_from(earlier, len(ids)) if earlier else ids

    def _prepare(
        self,
        payloads: Sequence[CheckedPayload],
        options: JobOptions,
        batch_id: str = "",
        *,
        ids: list[str] | None = None,
        key: str | None = None,
        scope: str = DEFAULT_SCOPE,
    ) -> SubmitGroup:
        """Return what is to be sent."""
        shared = header_fields(options, owner=self._client_id, default_retries=self._default_retries, batch_id=batch_id)
        metadata = self._started(self._checker).metadata_of(options)
        batch = batch_spec(batch_id, options, metadata) if batch_id else None
        scoped = scoped_key(key, scope) or scoped_key(options.idempotency_key, scope)
        if ids is None:
            ids = new_job_ids(len(payloads)) if options.job_id is None else [str(options.job_id)]
        group = group_of(payloads, ids, shared, key=scoped, batch=batch, metadata=metadata)
        group.maybe_known = options.job_id is not None
        return group

    @staticmethod
    def _started(part: _Part | None) -> _Part:
        if part is None:
            raise StartError("the adapter is not started: await adapter.start() first")
        return part


def _batch_of(prefix: str, job_ids: Sequence[str]) -> str:
    """Return the id of the batch whose first job has the first of these ids."""
    return f"{prefix}-{job_ids[0]}"


def _result_of(info: JobInfo) -> JobResult:
    if info.status == "completed" and info.result is not None:
        return info.result
    raise info.exception() or JobError(f"job {info.job_id} ended as {info.status} without a reason")
