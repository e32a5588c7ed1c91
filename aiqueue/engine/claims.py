"""Giving jobs to a worker."""

from __future__ import annotations

from aiqueue.engine.cancellation import expire
from aiqueue.engine.core import Core
from aiqueue.engine.groups import TAKEN_AT_ONCE
from aiqueue.engine.lanes import Room
from aiqueue.engine.leases import Worker
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState


def give(
    core: Core,
    turn: Turn,
    worker: Worker,
    count: int,
    *,
    levels: int | None = None,
    room: Room | None = None,
    apart: bool = False,
) -> list[JobRecord]:
    """Give ``worker`` the best jobs of its pool, ``count`` at most; of the first ``levels`` levels only if given.

    ``apart``: suspects, and no others. ``room``: what lets jobs of a lane through, instead of the gates alone.
    """
    claimed: list[JobRecord] = []
    room = room or core.room(turn.now)
    some_late = core.any_late(turn.now)
    while left := count - len(claimed):
        some = min(left, TAKEN_AT_ONCE) if core.groups else left
        if (alike := worker.affinity) is None:
            taken = core.lanes.take(worker.pool, some, room, now=turn.now, levels=levels, apart=apart)
        else:
            served = core.leases.models_beside(worker)
            taken = core.lanes.take_alike(
                worker.pool, some, room, alike, served, now=turn.now, levels=levels, apart=apart
            )
        in_time = _without_late(core, turn, taken) if some_late else taken
        may = [job for job in in_time if not job.batch_id or core.groups.start(job)] if core.groups else in_time
        claimed += _start(core, turn, worker, may)
        if not taken or not core.groups or len(in_time) < len(taken):
            break
    return claimed


def _without_late(core: Core, turn: Turn, taken: list[JobRecord]) -> list[JobRecord]:
    """End the jobs that were to be started by now, though their turn to expire has not come; return the others."""
    in_time = []
    for job in taken:
        if core.is_late(job.id, turn.now):
            core.lanes.push(job)
            expire(core, turn, job)
        else:
            in_time.append(job)
    return in_time


def _start(core: Core, turn: Turn, worker: Worker, jobs: list[JobRecord]) -> list[JobRecord]:
    for job in jobs:
        core.gates.of(job.lane, now=turn.now).started(turn.now)
        job.attempt += 1
        core.started(job.id)
        job.worker_id = worker.id
        job.started_at = turn.now
        core.leases.grant(worker, job)
        core.move(turn, job, JobState.PROCESSING)
    return jobs
