"""``adapter.on("job:completed", fn)``: who is told about what."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from aiqueue.errors import FieldError, JobError, ValidationError, error_from
from aiqueue.protocol import ANNOUNCED, RESTARTED, Event
from aiqueue.results import JobResult
from aiqueue.texts import plain
from aiqueue.views import JobInfo, SlaCompliance, event_info, moment

_log = logging.getLogger(__name__)

JOB_EVENTS = frozenset(
    {
        "job:submitted",
        "job:processing",
        "job:retried",
        "job:completed",
        "job:failed",
        "job:dead-letter",
        "job:cancelled",
        "job:expired",
    }
)
GATE_EVENTS = frozenset({"gate:closed", "gate:opened"})
BATCH_EVENTS = frozenset({"batch:submitted", "batch:ended"})
QUEUE_EVENTS = frozenset({RESTARTED})
EVENTS = JOB_EVENTS | GATE_EVENTS | BATCH_EVENTS | QUEUE_EVENTS | ANNOUNCED
ALL = "job:*"
WILDCARDS: Mapping[str, frozenset[str]] = {
    ALL: JOB_EVENTS,
    "gate:*": GATE_EVENTS,
    "batch:*": BATCH_EVENTS,
    "queue:*": QUEUE_EVENTS,
    "worker-pool:*": ANNOUNCED,
    "*": EVENTS,
}

Listener = Callable[[Any], Any]  #: of a JobEvent, GateEvent or SystemEvent, as its event's name says


class QueueEvent(msgspec.Struct, kw_only=True):
    """What every listener is given."""

    name: str
    number: int  #: grows by one from event to event


class GateEvent(QueueEvent):
    """``gate:closed`` and ``gate:opened``: whether a provider's model may be asked."""

    gate: str  #: "provider/model"
    provider: str
    model: str
    until: datetime | None  #: when it opens by itself; None of one that opened
    reason: str  #: why it closed; of one that opened ``probing``, if only one call may go first


class SystemEvent(QueueEvent):
    """``worker-pool:…`` and ``queue:restarted``: something about the system as a whole."""

    at: datetime
    data: dict[str, Any]  #: the event's own fields, as ``previous_size`` and ``new_size``


class JobEvent(QueueEvent):
    """What happened to a job: the fields of the specification's events."""

    job_id: str
    job: JobInfo
    result: JobResult | None = None
    error: JobError | None = None
    retry_count: int = 0  #: the job's, as it was then
    sla_compliance: SlaCompliance | None = None


AnyEvent = JobEvent | GateEvent | SystemEvent


def seen_event(event: Event) -> AnyEvent:
    """Return ``event`` as listeners see it."""
    if event.job_id:
        return job_event(event)
    if event.gate:
        return GateEvent(
            name=event.name,
            number=event.number,
            gate=event.gate,
            provider=event.provider,
            model=event.model,
            until=moment(event.until),
            reason=event.reason,
        )
    data = msgspec.json.decode(event.data or b"{}", type=dict[str, Any])
    return SystemEvent(name=event.name, number=event.number, at=datetime.fromtimestamp(event.at, UTC), data=data)


def job_event(event: Event) -> JobEvent:
    """Return an event about a job as listeners see it."""
    info = event_info(event)
    return JobEvent(
        name=event.name,
        number=event.number,
        job_id=event.job_id,
        job=info,
        result=info.result,
        error=error_from(event.failure) if event.failure else None,
        retry_count=info.retry_count,
        sla_compliance=info.sla_compliance,
    )


class _Entry(NamedTuple):
    listener: Listener
    once: bool


def _known(name: object) -> str:
    known_name = plain(name) if isinstance(name, str) else ""
    if known_name not in EVENTS and known_name not in WILDCARDS:
        known = f"{', '.join(sorted(EVENTS))} and {', '.join(WILDCARDS)}"
        raise ValidationError([FieldError("name", f"unknown event {name!r:.70}; there are: {known}")])
    return known_name


class Listeners:
    """Listeners by event name. One that raises is logged and does not stop the others.

    ``on_change`` is called when one that was to be called once has been.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._by_name: dict[str, list[_Entry]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, name: object, listener: Listener, *, once: bool = False) -> None:
        """Call ``listener`` for every event called ``name``, or whose group it is (the keys of ``WILDCARDS``).

        ``once``: for the first one only. Raises ValidationError for an unknown name, or what can't be called.
        """
        if not callable(listener):
            raise ValidationError([FieldError("listener", f"must be a function, not {type(listener).__name__}")])
        self._by_name.setdefault(_known(name), []).append(_Entry(listener, once))

    def remove(self, name: object, listener: Listener) -> None:
        """Call ``listener`` no more; nothing happens if it was not there. Raises ValidationError as ``add`` does."""
        name = _known(name)
        for entry in self._by_name.get(name, ()):
            if entry.listener == listener:
                self._drop(name, entry)
                return

    def _drop(self, name: str, entry: _Entry) -> None:
        self._by_name[name].remove(entry)
        if not self._by_name[name]:
            del self._by_name[name]

    def wanted(self) -> frozenset[str]:
        """Return the names that somebody listens to; ``*`` stands for all."""
        if {ALL, "*"} & self._by_name.keys():  # to sort out the few that are about no job costs less here
            return frozenset({"*"})
        return frozenset().union(*(WILDCARDS.get(name, {name}) for name in self._by_name))

    def tell(self, event: Event) -> None:
        """Call everyone who listens to this event's name."""
        names = [
            event.name,
            *(group for group in WILDCARDS.keys() & self._by_name.keys() if event.name in WILDCARDS[group]),
        ]
        told = [(name, entry) for name in names for entry in self._by_name.get(name, ())]
        if not told:
            return
        seen = seen_event(event)
        over = [(name, entry) for name, entry in told if entry.once]
        for name, entry in over:  # before they are called: whatever a listener does then, it is not called again
            self._drop(name, entry)
        for _, entry in told:
            self._call(entry.listener, seen)
        if over:
            self._on_change()

    def _call(self, listener: Listener, event: AnyEvent) -> None:
        try:
            answer = listener(event)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # CancelledError too: nothing is awaited here, so it is the listener's own
            _log.exception("listener %r failed on event %d, %s", listener, event.number, event.name)
            return
        if inspect.isawaitable(answer):
            task = asyncio.ensure_future(answer)
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("an asynchronous listener failed", exc_info=error)
