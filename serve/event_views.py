"""Events as JSON: what server-sent events and WebSocket messages carry."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from aiqueue.client.event_stream import Gap
from aiqueue.client.listeners import AnyEvent, GateEvent, JobEvent
from aiqueue.results import JobResult
from aiqueue.views import ErrorInfo, JobInfo, SlaCompliance


class JobEventView(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """The data of one event. ``job`` is the job then, without what stands beside it: result, error and compliance."""

    number: int
    job_id: str
    status: str
    job: JobInfo
    result: JobResult | None = None
    error: ErrorInfo | None = None
    retry_count: int = 0
    sla_compliance: SlaCompliance | None = None


class GateEventView(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """The data of ``gate:closed`` and ``gate:opened``."""

    number: int
    gate: str
    provider: str
    model: str
    until: datetime | None = None
    reason: str = ""


class GapView(msgspec.Struct, rename="camel"):
    """The data of ``event: gap``: the events after ``after``, up to ``number``, are gone. Look up what matters."""

    after: int
    number: int


def event_data(item: AnyEvent | Gap) -> msgspec.Struct | dict[str, Any]:
    """Return what the event's JSON is made of. An announced event's own fields stand beside its number."""
    if isinstance(item, Gap):
        return GapView(item.after, item.number)
    if isinstance(item, JobEvent):
        return JobEventView(
            number=item.number,
            job_id=item.job_id,
            status=item.job.status,
            job=msgspec.structs.replace(item.job, result=None, error=None, sla_compliance=None),
            result=item.result,
            error=item.job.error,
            retry_count=item.retry_count,
            sla_compliance=item.sla_compliance,
        )
    if isinstance(item, GateEvent):
        return GateEventView(
            number=item.number,
            gate=item.gate,
            provider=item.provider,
            model=item.model,
            until=item.until,
            reason=item.reason,
        )
    return {**{_camel(name): value for name, value in item.data.items()}, "number": item.number, "at": item.at}


def event_name(item: AnyEvent | Gap) -> str:
    """Return what the event is called on the wire."""
    return "gap" if isinstance(item, Gap) else item.name


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
