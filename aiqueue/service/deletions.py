"""What a deletion of dead letters writes: decided from what was read of them, without reading anything itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from aiqueue.engine.effects import Rows
from aiqueue.engine.soundness import end_in
from aiqueue.engine.states import JobState
from aiqueue.engine.successors import DELETED, StateRow, successor_of, with_successor
from aiqueue.journal.base import StoredJob

_LONG_AGO = 1.0  # 0 stands for "has not ended"; retention takes such a job as soon as no other needs it


class Facts(NamedTuple):
    """Dead letters that are to be deleted, and what has to do with them. Jobs are named by their ids."""

    dead: Sequence[StoredJob]
    deleted_predecessors: Sequence[StoredJob] = ()
    other_predecessors: Sequence[StoredJob] = ()
    living: Set[str] = frozenset()  #: those whose work goes on, or was done, in another job, or may
    tried: Set[str] = frozenset()  #: those that ``map`` has tried again
    needed: Set[str] = frozenset()  #: those that a job needs that has not ended
    free: Sequence[tuple[str, str]] = ()  #: keys that stand for nothing else, and the jobs that they name
    forgotten: Set[int] = frozenset()  #: seqs that retention has deleted meanwhile


def rows_of_deletion(facts: Facts) -> Rows:
    """Return what the deletion writes. What is kept of it is a failed job from now on.

    A job goes on naming its successor if the way from there leads to one that is not deleted.
    """
    dead = {job.id for job in facts.dead}
    deleted = {job.id: job for job in (*facts.deleted_predecessors, *facts.dead) if job.id not in facts.living}
    others = [job for job in (*facts.deleted_predecessors, *facts.other_predecessors) if job.id not in dead]
    stay = facts.living | facts.tried | facts.needed
    goes_on: dict[str, bool] = {}
    ends = {job.id for job in others if not _goes_on(job, deleted, goes_on)}
    ends |= {job.id for job in facts.dead if job.id in stay and not _goes_on(job, deleted, goes_on)}
    kept = stay | {heir for heir, is_link in goes_on.items() if is_link}
    failed = JobState.FAILED.value
    states: list[StateRow] = []
    for job in facts.dead:
        if job.id in kept:
            states.append(_row(job, failed, with_successor(job.progress, DELETED) if job.id in ends else job.progress))
    for job in others:
        if job.id in ends:
            states.append(_row(job, job.state, with_successor(job.progress, _no_heir_of(job))))
    return Rows(
        states=[row for row in states if row[0] not in facts.forgotten],
        deletes=[job.seq for job in facts.dead if job.id not in kept],
        free_keys=[*facts.free],
    )


def _goes_on(job: StoredJob, deleted: Mapping[str, StoredJob], known: dict[str, bool]) -> bool:
    """Return True if the way from a job leads to one that is not deleted; note that of each successor on the way."""
    way: list[str] = []
    heir = successor_of(job.progress)
    while heir and heir not in known:
        way.append(heir)
        known[heir] = heir not in deleted  # a damaged row might lead in a circle: that ends here, and leads nowhere
        heir = successor_of(deleted[heir].progress) if heir in deleted else heir
    known.update(dict.fromkeys(way, known.get(heir, False)))
    return known.get(heir, False)


def _no_heir_of(job: StoredJob) -> str:
    """Return what to name instead of a successor that was deleted: only a dead letter may be repeated once more."""
    return "" if job.state == JobState.DEAD_LETTER else DELETED


def _row(job: StoredJob, state: str, progress: bytes) -> StateRow:
    return job.seq, state, progress, end_in(progress, _LONG_AGO)
