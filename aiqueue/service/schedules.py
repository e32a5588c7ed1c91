"""Schedules, as clients ask about them: one call with an action, answered when what it changed is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiqueue.engine import AddSchedule, ChangeSchedule, QueueEngine, RunSchedule
from aiqueue.engine.commands import Command
from aiqueue.engine.schedule_records import (
    Schedule,
    SchedulesCall,
    ScheduleSpec,
    SchedulesReply,
    ScheduleView,
)
from aiqueue.errors import DuplicateJob, IdempotencyConflict, ScheduleNotFound, ValidationError
from aiqueue.journal.base import Journal
from aiqueue.protocol import Refusal, decode_header
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.digests import digest_of_schedule, has_digest_of_schedule

MAX_NEXT = 100  #: coming ticks that are told at once
MAX_VIEWS = 100  #: schedules that are copied without letting the event loop do something else

Apply = Callable[[Command], tuple[Any, Committed]]


class ScheduleDesk:
    """Takes calls about schedules to the engine and shows what it has."""

    def __init__(
        self, apply: Apply, engine: QueueEngine, journal: Journal, commits: CommitPipeline, clock: Clock
    ) -> None:
        self._apply, self._engine, self._journal = apply, engine, journal
        self._commits, self._clock = commits, clock
        self._adding = asyncio.Lock()  # with a key, one after the other

    async def answer(self, call: SchedulesCall) -> SchedulesReply:
        """Carry out a call. Raises JournalUnavailable where something new can't be written."""
        if call.action in ("list", "get"):
            return await self._look(call)
        self._commits.check()
        if call.action == "add" and call.key:
            async with self._adding:
                return await self._change(call)
        return await self._change(call)

    async def _change(self, call: SchedulesCall) -> SchedulesReply:
        command = await self._command(call)
        if isinstance(command, Refusal):
            return SchedulesReply(refusal=command)
        if isinstance(command, SchedulesReply):
            return command
        before = self._engine.core.schedules.find(call.schedule)
        found, committed = self._apply(command)
        await asyncio.shield(committed)
        if isinstance(found, Refusal):
            return SchedulesReply(refusal=found)
        schedule = self._engine.core.schedules.find(found) or before
        return SchedulesReply([self._view(schedule, call.next_ticks)] if schedule else [], job_id=call.job_id)

    async def _command(self, call: SchedulesCall) -> Command | Refusal | SchedulesReply:
        """Return what is to be done, why it can't be, or the answer of the first time."""
        if call.action == "add" and call.spec is not None:
            return await self._with_key(call.spec, call) if call.key else AddSchedule(call.spec)
        if call.action in ("pause", "resume", "remove"):
            return ChangeSchedule(call.schedule, call.action)
        if call.action == "run" and call.job_id:
            return await self._run(call)
        return Refusal(ValidationError.kind, f"action: can't {call.action!r}, or something is missing for it")

    async def _with_key(self, spec: ScheduleSpec, call: SchedulesCall) -> Command | Refusal | SchedulesReply:
        """Return how to add a schedule under an idempotency key: not at all, if it was added under it before."""
        await asyncio.shield(self._commits.settled())
        used = (await self._commits.read(self._journal.keys, [call.key])).get(call.key)
        digest = digest_of_schedule(spec)
        if used is None:
            return AddSchedule(spec, call.key, digest)
        if not has_digest_of_schedule(spec, used.digest, digest):
            return Refusal(IdempotencyConflict.kind, call.key, used.job_id)
        schedule = self._engine.core.schedules.find(used.job_id)
        if schedule is None:  # and was removed since: a request that comes late must not bring it back
            return Refusal(ScheduleNotFound.kind, used.job_id)
        return SchedulesReply([self._view(schedule, call.next_ticks)])

    async def _run(self, call: SchedulesCall) -> Command | Refusal | SchedulesReply:
        """Return how to start a job by hand: not at all, if it was started before."""
        schedule = self._engine.core.schedules.find(call.schedule)
        await asyncio.shield(self._commits.settled())
        found = await self._commits.read(self._journal.jobs, [call.job_id], with_result=False)
        known = found.get(call.job_id)
        if known is None or schedule is None:
            return RunSchedule(call.schedule, call.job_id)
        if decode_header(known.header).owner != schedule.spec.id:
            return Refusal(DuplicateJob.kind, call.job_id, call.job_id)
        return SchedulesReply([self._view(schedule, call.next_ticks)], job_id=call.job_id)

    async def _look(self, call: SchedulesCall) -> SchedulesReply:
        schedules = self._engine.core.schedules
        if call.schedule:
            found = schedules.find(call.schedule)
            chosen = [] if found is None else [found]
        else:
            chosen = sorted(schedules, key=lambda each: each.spec.name)
        # What is shown must be on disk; and as it is now, while it is.
        views = []
        for number, each in enumerate(chosen, start=1):
            views.append(self._view(each, call.next_ticks if call.schedule else 0))
            if number % MAX_VIEWS == 0:
                await asyncio.sleep(0)
        if call.with_payload:
            for view, each in zip(views, chosen, strict=True):
                view.spec = each.spec
        await asyncio.shield(self._commits.settled())
        if call.schedule and not views:
            return SchedulesReply(refusal=Refusal(ScheduleNotFound.kind, call.schedule))
        return SchedulesReply(views)

    def _view(self, schedule: Schedule, next_ticks: int) -> ScheduleView:
        """Return a copy: the engine goes on with its own."""
        state = schedule.copy_of_state()
        coming = [state.next_tick] if state.next_tick else []
        if schedule.cron is not None and next_ticks > 1 and state.enabled:
            now = self._clock.now() + self._engine.core.ahead_s
            coming = schedule.cron.after(max(state.last_tick, now), count=min(next_ticks, MAX_NEXT))
        return ScheduleView(schedule.spec_without_payload(), state, coming)
