"""What one client of a socket follows, and what it is told: the same for the plain WebSocket and for Socket.IO."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from aiqueue.client.event_stream import EventStream, Gap
from aiqueue.client.listeners import EVENTS, WILDCARDS, AnyEvent, JobEvent
from aiqueue.errors import JobNotFound, QueueUnavailable
from aiqueue.protocol import END_STATES
from aiqueue.results import JobResult
from aiqueue.views import JobInfo
from serve.event_views import event_data
from serve.routes.shared import QueueAdapter, parse_job_id

MAX_JOBS = 500  #: that one client may follow at once
_RETRY_S = 0.3

Send = Callable[[str, object], Awaitable[None]]


class Refused(Exception):
    """The client asked for what it can't have; its connection is not worth keeping."""


class JobUpdate(msgspec.Struct, rename="camel", omit_defaults=True):
    """How a job is: ``error`` is the message of what ended it or its last attempt, ``code`` the kind of that error."""

    job_id: str
    status: str
    result: JobResult | None = None
    error: str = ""
    code: str = ""


class Follower:
    """Subscribes to jobs and events for one client, and sends it what happens; ``send`` may wait for the reader."""

    def __init__(self, adapter: QueueAdapter, send: Send) -> None:
        self._adapter, self._send = adapter, send
        self._stream: EventStream = adapter.events()
        self._stream.watch(())
        self._pending: dict[str, None] = {}  # to be looked up and shown as they are now; in order
        self._names: frozenset[str] = frozenset()  # events wanted whatever they are about
        self._following: dict[str, int] = {}  # job: the events up to this number are in what was shown of it

    def subscribe(self, job_id: object) -> None:
        """Show this job now and at every change. Raises Refused."""
        self._pending[_spelling(job_id)] = None
        if len(self._pending.keys() | self._following.keys()) > MAX_JOBS:
            raise Refused(f"one socket may follow {MAX_JOBS} jobs")
        self._stream.wake()

    def unsubscribe(self, job_id: object) -> None:
        """Show this job no more. Raises Refused."""
        self._pending.pop(_spelling(job_id), None)
        self._forget(_spelling(job_id))

    def subscribe_events(self, names: object) -> None:
        """Send the events of these names from now on, and of no others. Raises Refused."""
        self._names = _names(names)
        self._stream.watch(self._following, self._names)

    async def step(self, wait_s: float) -> None:
        """Send what there is to be sent; wait up to ``wait_s`` seconds for something."""
        try:
            if self._pending:
                await self._show(next(iter(self._pending)))
                return
        except QueueUnavailable:
            await asyncio.sleep(_RETRY_S)
            return
        for item in await self._stream.poll(wait_s):
            await self._tell(item)

    async def aclose(self) -> None:
        """Let go of the queue."""
        await self._stream.aclose()

    async def _show(self, job_id: str) -> None:
        """Follow a job and say how it is now."""
        if not _is_id(job_id):  # no job's: it has no place in the poll that all streams share
            self._pending.pop(job_id, None)
            await self._say_unknown(job_id)
            return
        await self._stream.open()
        since = await self._stream.newest()
        if job_id not in self._following:
            self._following[job_id] = since
            self._stream.watch(self._following, self._names)
        info = await self._adapter.get_job_status(job_id)
        if self._pending.pop(job_id, ...) is ... or job_id not in self._following:
            return  # unsubscribed meanwhile
        if info is None:
            self._forget(job_id)
            await self._say_unknown(job_id)
            return
        self._following[job_id] = since
        await self._update(info)

    async def _say_unknown(self, job_id: str) -> None:
        await self._send("job:error", JobUpdate(job_id, "", error=str(JobNotFound(job_id)), code=JobNotFound.kind))

    async def _tell(self, item: AnyEvent | Gap) -> None:
        if isinstance(item, Gap):  # what was missed may be an end
            await self._send("gap", event_data(item))
            self._pending.update(dict.fromkeys(self._following))
            return
        if item.name in self._names:
            await self._send(item.name, event_data(item))
        if isinstance(item, JobEvent) and item.number > self._following.get(item.job_id, item.number):
            await self._update(item.job)

    async def _update(self, info: JobInfo) -> None:
        if info.status in END_STATES:
            self._forget(info.job_id)
        error, code = (info.error.message, info.error.kind) if info.error else ("", "")
        await self._send("job:update", JobUpdate(info.job_id, info.status, info.result, error, code))

    def _forget(self, job_id: str) -> None:
        if self._following.pop(job_id, None) is not None:
            self._stream.watch(self._following, self._names)


def _names(asked: object) -> frozenset[str]:
    """Return the names of events asked for, wildcards spelt out."""
    if not isinstance(asked, list):
        raise Refused("subscribe:events takes a list of names of events")
    names: set[str] = set()
    for name in asked:
        if not isinstance(name, str) or (name not in EVENTS and name not in WILDCARDS):
            raise Refused(f"unknown event {str(name)[:64]!r}")
        names |= WILDCARDS.get(name, {name})
    return frozenset(names)


def _spelling(text: Any) -> str:
    if not isinstance(text, str):
        raise Refused("a subscription takes a job's id")
    try:
        return parse_job_id(text)
    except JobNotFound:
        return text[:64]


def _is_id(text: str) -> bool:
    try:
        return parse_job_id(text) == text
    except JobNotFound:
        return False
