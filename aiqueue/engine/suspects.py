"""Which job killed its worker: jobs whose worker died are run again in ever smaller company, until one is alone.

When a worker dies, any of the jobs it ran may be the cause. All of them become suspects. One worker of the pool at a
time runs suspects, and nothing else beside them: half as many as died together. If that worker dies too, its group is
halved again. So a job that kills its worker is alone after log2(slots) deaths, and only the deaths after that count
against it. The others have completed by then. A suspect is cleared when its attempt ends, with an answer or a failure,
and its worker lives. A job that its provider refused, or that a worker handed back, has not run and stays a suspect.

A machine that is lost, or a worker that somebody stopped, says nothing about the jobs it ran. But nor may a job run for
ever that takes the whole machine with it: from its ``max_crashes`` + 1st lost worker on every loss counts.
"""

from __future__ import annotations

from msgspec.structs import replace

from aiqueue.engine.claims import give
from aiqueue.engine.core import Core
from aiqueue.engine.lanes import Room
from aiqueue.engine.leases import Worker
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import JobRecord, LaneKey


def accuse(job: JobRecord, *, beside: int, crashed: bool, max_crashes: int) -> None:
    """Count a lost worker of a job that is in no lane. ``beside``: how many jobs the worker held, this one included."""
    job.crashes += 1
    if not crashed and job.crashes <= max_crashes:
        return
    job.blamed += beside == 1
    job.lane = apart(job.lane, max(1, beside // 2))


def acquit(job: JobRecord) -> None:
    """Its attempt came to an end of its own, and its worker lives: a job in no lane is a suspect no longer."""
    if job.lane.company:
        job.lane = apart(job.lane, 0)


def apart(lane: LaneKey, company: int) -> LaneKey:
    """Return the lane of suspects that may run in groups of ``company``; 0: the lane of those that are none."""
    return replace(lane, company=company)


def in_quarantine(core: Core) -> bool:
    """Tell whether any suspect waits or any worker runs suspects, so that claims need a closer look."""
    return bool(core.lanes.suspects or core.quarantine or core.isolated)


def claimable(core: Core, pool: str, *, now: float) -> int:
    """Return how many suspects a worker of ``pool`` that waits might be given now."""
    chosen = core.leases.find(core.quarantine.get(pool, ""))
    busy = chosen is not None and bool(chosen.held)
    return 0 if busy or not core.lanes.suspects else core.lanes.queued(pool, core.room(now), apart=True)


def claim(core: Core, turn: Turn, worker: Worker, most: int) -> list[JobRecord] | None:
    """Return what ``worker`` is given in place of ordinary jobs: suspects or nothing; None: ordinary jobs.

    One worker of a pool is chosen, the one that holds least. It takes nothing until it is empty, then a group of
    suspects, and nothing beside them until the last of them has ended. A group is next when the best suspect would be
    the next job of the pool anyway. So an urgent job waits for one group at most, and suspects wait no longer than
    other jobs of their place.
    """
    pool = worker.pool
    core.isolated = {each.id for each in map(core.leases.find, core.isolated) if each and _runs_suspects(each)}
    chosen = _chosen(core, worker)
    if chosen is None and _are_next(core, turn, pool):
        chosen = _least_busy(core, pool)
        if chosen is not None:
            core.quarantine[pool] = chosen.id
    if chosen is not worker:
        return [] if _runs_suspects(worker) else None
    if worker.held:
        return []
    group = _group(core, turn, worker, most) if _are_next(core, turn, pool) else []
    if not group:
        del core.quarantine[pool]
        return None
    core.isolated.add(worker.id)
    return group


def _chosen(core: Core, caller: Worker) -> Worker | None:
    """Return the worker that was chosen for suspects; one that is empty takes the place of one that is not yet."""
    chosen = core.leases.find(core.quarantine.get(caller.pool, ""))
    if chosen is None or not chosen.slots:  # it is gone, or takes no more work
        core.quarantine.pop(caller.pool, None)
        return None
    if caller.slots and not caller.held and chosen.held and not _runs_suspects(chosen):
        core.quarantine[caller.pool] = caller.id
        return caller
    return chosen


def _runs_suspects(worker: Worker) -> bool:
    return any(job.lane.company for job in worker.held.values())


def _least_busy(core: Core, pool: str) -> Worker | None:
    there = (worker for worker in core.leases if worker.pool == pool and worker.slots)
    return min(there, key=lambda worker: len(worker.held), default=None)


def _are_next(core: Core, turn: Turn, pool: str) -> bool:
    room = core.room(turn.now)
    suspect = core.lanes.first(pool, room, now=turn.now, apart=True)
    other = core.lanes.first(pool, room, now=turn.now, apart=False)
    return suspect is not None and (other is None or suspect < other)


def _group(core: Core, turn: Turn, worker: Worker, most: int) -> list[JobRecord]:
    """Give an empty worker suspects, none of them in more company than it may have."""
    group = _fill(core, turn, worker, min(most, worker.free_for_all), levels=None)
    return group or _fill(core, turn, worker, most, levels=1)


def _fill(core: Core, turn: Turn, worker: Worker, most: int, *, levels: int | None) -> list[JobRecord]:
    group: list[JobRecord] = []
    while len(group) < most:
        room = _room(core, turn, len(group) + 1)
        more = give(core, turn, worker, 1, levels=levels, room=room, apart=True)
        if not more:
            break
        group += more
        most = min(most, more[0].lane.company)
    return group


def _room(core: Core, turn: Turn, company: int) -> Room:
    """Return what lets through suspects that may run in a group of ``company``, as far as their gates do."""
    gates = core.room(turn.now)
    return lambda lane: gates(lane) if lane.company >= company else 0
