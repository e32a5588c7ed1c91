"""``adapter.on("job:completed", fn)``: who is told about what."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from aiqueue.errors import JobError, error_from
from aiqueue.protocol import Event
from aiqueue.results import JobResult
from aiqueue.views import JobInfo, SlaCompliance, event_info

_log = logging.getLogger(__name__)

EVENTS = frozenset(
    {
        "job:submitted",
        "job:processing",
        "job:retried",
        "job:completed",
        "job:failed",
        "job:dead-letter",
        "job:cancelled",
        "job:expired",
        "gate:closed",
        "gate:opened",
    }
)
ALL = "job:*"

Listener = Callable[["JobEvent"], Any]


class JobEvent(msgspec.Struct, kw_only=True):
    """What a listener is given: the fields of the specification's events."""

    name: str
    number: int  #: grows by one from event to event
    job_id: str
    job: JobInfo
    result: JobResult | None = None
    error: JobError | None = None
    retry_count: int = 0
    sla_compliance: SlaCompliance | None = None


def job_event(event: Event) -> JobEvent:
    """Return ``event`` as listeners see it."""
    info = event_info(event)
    return JobEvent(
        name=event.name,
        number=event.number,
        job_id=event.job_id,
        job=info,
        result=info.result,
        error=error_from(event.failure) if event.failure else None,
        retry_count=event.attempt if event.name == "job:retried" else max(0, event.attempt - 1),
        sla_compliance=info.sla_compliance,
    )


class Listeners:
    """Listeners by event name. One that raises is logged and does not stop the others."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Listener]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, name: str, listener: Listener) -> None:
        """Call ``listener`` for every event called ``name`` (``job:*``: all). Raises ValueError for an unknown name."""
        if name != ALL and name not in EVENTS:
            raise ValueError(f"unknown event {name!r}; there are: {', '.join(sorted(EVENTS))} and {ALL}")
        self._by_name.setdefault(name, []).append(listener)

    def remove(self, name: str, listener: Listener) -> None:
        """Call ``listener`` no more; nothing happens if it was not there."""
        listeners = self._by_name.get(name, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._by_name.pop(name, None)

    def wanted(self) -> frozenset[str]:
        """Return the names that somebody listens to; ``*`` stands for all."""
        return frozenset("*" if name == ALL else name for name in self._by_name)

    def tell(self, event: Event) -> None:
        """Call everyone who listens to this event's name."""
        listeners = [*self._by_name.get(event.name, ()), *self._by_name.get(ALL, ())]
        if listeners:
            seen = job_event(event)
            for listener in listeners:
                self._call(listener, seen)

    def _call(self, listener: Listener, event: JobEvent) -> None:
        try:
            answer = listener(event)
        except Exception:
            _log.exception("listener %r failed on %s of job %s", listener, event.name, event.job_id)
            return
        if inspect.isawaitable(answer):
            task = asyncio.ensure_future(answer)
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("an asynchronous listener failed", exc_info=error)
