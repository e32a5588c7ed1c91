"""Jobs that come again by a cron line. ``adapter.schedules`` of both adapters."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any, NoReturn, Protocol, TypeVar

import pydantic

from aiqueue.client import given
from aiqueue.client.headers import DEFAULT_SCOPE, callers_key, header_fields, scoped_key
from aiqueue.client.schedule_models import (
    ScheduleDefinition,
    ScheduledJobOptions,
    ScheduleInfo,
    ScheduleRunInfo,
    history_of,
    schedule_info,
)
from aiqueue.client.transport import QueueTransport
from aiqueue.engine.schedule_records import SchedulesCall, ScheduleSpec, SchedulesReply, ScheduleView
from aiqueue.errors import (
    AIQueueError,
    DuplicateJob,
    FieldError,
    IdempotencyConflict,
    QueueFull,
    ScheduleExists,
    ScheduleNotFound,
    ValidationError,
)
from aiqueue.ids import id_of, new_id, new_job_ids
from aiqueue.levels import AIJobPriority
from aiqueue.models import MAX_COUNT
from aiqueue.protocol import JobHeader, Refusal
from aiqueue.validation import Payload, PayloadChecker, field_errors

_T = TypeVar("_T")

AnySchedule = str | ScheduleInfo  #: a schedule's id, its name, or the schedule itself
_SHOWN = 5  # coming runs that an answer shows


class ScheduleClient:
    """The schedules of the system that the adapter has joined.

    Every call raises QueueUnavailable when the queue does not answer, and ScheduleNotFound for a schedule that is not
    there.
    """

    def __init__(self, transport: QueueTransport, checker: PayloadChecker, default_retries: int) -> None:
        self._transport, self._checker, self._default_retries = transport, checker, default_retries

    async def add(
        self,
        payload: Mapping[str, Any] | Payload,
        name: str,
        cron_expression: str,
        priority: AIJobPriority | str | int | None = None,
        enabled: bool = True,
        timezone: str = "UTC",
        overlap: str = "skip",
        catch_up: str = "last",
        jitter: int = 0,
        options: Mapping[str, Any] | ScheduledJobOptions | None = None,
        idempotency_key: str | None = None,
    ) -> ScheduleInfo:
        """Return the new schedule, with its next runs, once it is on the queue's disk.

        The same schedule under the same name again is the one that is there: a program may add its schedules each time
        it starts. ``jitter`` is in milliseconds; ``options`` are those of each job. Raises ValidationError, which names
        the field, ScheduleExists for a name that is taken by another schedule, and IdempotencyConflict for a key that
        was used for another request.
        """
        fields = {
            "name": name,
            "cron_expression": cron_expression,
            "enabled": enabled,
            "timezone": timezone,
            "overlap": overlap,
            "catch_up": catch_up,
            "jitter": jitter,
            "priority": priority,
            "options": {} if options is None else options,
        }
        try:
            definition = ScheduleDefinition.model_validate(fields)
        except pydantic.ValidationError as error:
            raise ValidationError(field_errors(error)) from None
        return await self.put(payload, definition, idempotency_key=idempotency_key)

    async def put(
        self,
        payload: Mapping[str, Any] | Payload,
        definition: ScheduleDefinition,
        *,
        idempotency_key: str | None = None,
        scope: str = DEFAULT_SCOPE,
    ) -> ScheduleInfo:
        """As ``add``, with a definition that is validated already. ``scope`` says whose key it is."""
        try:
            options = definition.job_options()
        except ValueError as error:
            raise ValidationError([FieldError("priority", str(error))]) from None
        kind, provider, model, body = self._checker.check(payload)
        fields = header_fields(options, owner="", default_retries=self._default_retries, batch_id="")
        header = JobHeader(kind, provider, model, *fields)
        header.metadata = self._checker.metadata_of(options)
        spec = ScheduleSpec(
            new_id("schedule"),
            definition.name,
            definition.cron_expression,
            header,
            body,
            definition.timezone,
            definition.overlap,
            definition.catch_up,
            definition.jitter,
            definition.enabled,
        )
        call = SchedulesCall("add", spec=spec, next_ticks=_SHOWN, key=scoped_key(idempotency_key, scope))
        return schedule_info(_only(await self._call(call)))

    async def find(self) -> list[ScheduleInfo]:
        """Return all schedules by name, each with its next run."""
        return [schedule_info(view) for view in (await self._call(SchedulesCall("list"))).schedules]

    async def get(self, schedule: AnySchedule) -> ScheduleInfo:
        """Return a schedule, with its next runs and its payload."""
        return schedule_info(await self._get(schedule, _SHOWN, with_payload=True))

    async def next_runs(self, schedule: AnySchedule, count: int = 10) -> list[datetime]:
        """Return the next ``count`` runs (at most 100), in the schedule's time zone; none while it is paused."""
        return schedule_info(await self._get(schedule, given.number("count", count, most=MAX_COUNT))).next_runs[:count]

    async def history(self, schedule: AnySchedule, limit: int = 50) -> list[ScheduleRunInfo]:
        """Return the last runs, at most 50, the newest first: what became of each tick, and how its job ended."""
        limit = given.number("limit", limit)
        return history_of(await self._get(schedule, 0))[:limit]

    async def pause(self, schedule: AnySchedule) -> ScheduleInfo:
        """Let no more ticks fire. Jobs that it has started go on."""
        return await self._change("pause", schedule)

    async def resume(self, schedule: AnySchedule) -> ScheduleInfo:
        """Go on with the next tick from now; those that passed during the pause are left out."""
        return await self._change("resume", schedule)

    async def remove(self, schedule: AnySchedule) -> ScheduleInfo:
        """Forget a schedule and return what it was. Jobs that it has started go on."""
        there = await self.get(schedule)
        try:
            return await self._change("remove", there.schedule_id)  # and not another one that takes the name meanwhile
        except ScheduleNotFound:  # an answer was lost, and the call that was asked again finds nothing any more
            return there

    async def run_now(
        self, schedule: AnySchedule, *, idempotency_key: str | None = None, scope: str = DEFAULT_SCOPE
    ) -> str:
        """Start one job beside the cron line, also while it is paused or runs already; return the job's id.

        With a key that was used before it is the job of that time. Raises DuplicateJob if that was another schedule's.
        """
        key = scoped_key(idempotency_key, scope)
        job_id = id_of("run", key) if key else new_job_ids(1)[0]
        return (await self._call(SchedulesCall("run", _name_of(schedule), job_id=job_id))).job_id

    async def _get(self, schedule: AnySchedule, next_ticks: int, *, with_payload: bool = False) -> ScheduleView:
        call = SchedulesCall("get", _name_of(schedule), next_ticks=next_ticks, with_payload=with_payload)
        return _only(await self._call(call))

    async def _change(self, action: str, schedule: AnySchedule) -> ScheduleInfo:
        return schedule_info(_only(await self._call(SchedulesCall(action, _name_of(schedule), next_ticks=_SHOWN))))

    async def _call(self, call: SchedulesCall) -> SchedulesReply:
        reply = await self._transport.schedules(call)
        if reply.refusal is not None:
            _refuse(reply.refusal)
        return reply


def _name_of(schedule: AnySchedule) -> str:
    name = given.text("schedule", schedule.schedule_id if isinstance(schedule, ScheduleInfo) else schedule)
    if not name:
        raise ValidationError([FieldError("schedule", "is empty: give a schedule's id or its name")])
    return name


def _only(reply: SchedulesReply) -> ScheduleView:
    (view,) = reply.schedules
    return view


def _refuse(refusal: Refusal) -> NoReturn:
    """Raise the error that ``refusal`` stands for."""
    if refusal.kind == ValidationError.kind:
        field, _, message = refusal.message.partition(": ")
        raise ValidationError([FieldError(field, message)])
    if refusal.kind == QueueFull.kind:
        raise QueueFull(refusal.message, refusal.retry_after_s)
    if refusal.kind == IdempotencyConflict.kind:
        raise IdempotencyConflict(callers_key(refusal.message))
    known = (ScheduleNotFound, ScheduleExists, DuplicateJob)
    by_kind = {error.kind: error for error in known}
    raise by_kind.get(refusal.kind, AIQueueError)(refusal.message)


class Runner(Protocol):
    """Runs a coroutine on the adapter's loop and returns what it returns."""

    def __call__(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Block until ``call`` has ended."""
        ...


class SyncScheduleClient:
    """As ScheduleClient; each call blocks until its answer is there."""

    def __init__(self, run: Runner, client: ScheduleClient) -> None:
        self._run, self._client = run, client

    def add(
        self, payload: Mapping[str, Any] | Payload, name: str, cron_expression: str, *rules: Any, **more: Any
    ) -> ScheduleInfo:
        """Return the new schedule, with its next runs; arguments as in ScheduleClient.add."""
        return self._run(self._client.add(payload, name, cron_expression, *rules, **more))

    def find(self) -> list[ScheduleInfo]:
        """Return all schedules by name, each with its next run."""
        return self._run(self._client.find())

    def get(self, schedule: AnySchedule) -> ScheduleInfo:
        """Return a schedule, with its next runs and its payload."""
        return self._run(self._client.get(schedule))

    def next_runs(self, schedule: AnySchedule, count: int = 10) -> list[datetime]:
        """Return the next ``count`` runs (at most 100), in the schedule's time zone; none while it is paused."""
        return self._run(self._client.next_runs(schedule, count))

    def history(self, schedule: AnySchedule, limit: int = 50) -> list[ScheduleRunInfo]:
        """Return the last runs, at most 50, the newest first."""
        return self._run(self._client.history(schedule, limit))

    def pause(self, schedule: AnySchedule) -> ScheduleInfo:
        """Let no more ticks fire."""
        return self._run(self._client.pause(schedule))

    def resume(self, schedule: AnySchedule) -> ScheduleInfo:
        """Go on with the next tick from now."""
        return self._run(self._client.resume(schedule))

    def remove(self, schedule: AnySchedule) -> ScheduleInfo:
        """Forget a schedule and return what it was."""
        return self._run(self._client.remove(schedule))

    def run_now(self, schedule: AnySchedule, *, idempotency_key: str | None = None) -> str:
        """Start one job beside the cron line; return its id."""
        return self._run(self._client.run_now(schedule, idempotency_key=idempotency_key))
