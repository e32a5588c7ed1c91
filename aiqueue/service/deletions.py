"""What a deletion of dead letters writes: decided from what was read of them, without reading anything itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from aiqueue.engine.effects import Rows
from aiqueue.engine.soundness import end_in
from aiqueue.engine.states import JobState
from aiqueue.engine.successors import DELETED, StateRow, has_successor, successor_of, with_successor
from aiqueue.journal.base import StoredJob

_LONG_AGO = 1.0  # 0 stands for "has not ended"; retention takes such a job as soon as no other needs it


class Facts(NamedTuple):
    """Dead letters that are to be deleted, and what has to do with them. Jobs are named by their ids."""

    dead: Sequence[StoredJob]
    earlier: Sequence[StoredJob] = ()  #: jobs that lead to one of these, and were deleted before and kept
    before: Sequence[StoredJob] = ()  #: the others that name one of all these as their successor
    living: Set[str] = frozenset()  #: those whose work goes on, or was done, in another job, or may
    tried: Set[str] = frozenset()  #: those that ``map`` has tried again
    needed: Set[str] = frozenset()  #: those that a job needs that has not ended
    free: Sequence[tuple[str, str]] = ()  #: keys that stand for nothing else, and the jobs that they name
    forgotten: Set[int] = frozenset()  #: seqs that retention has deleted meanwhile


def rows_of_deletion(facts: Facts) -> Rows:
    """Return what the deletion writes. What is kept of it is a failed job from now on.

    A job goes on naming its successor if the way from there leads to one that is not deleted.
    """
    gone = {job.id: job for job in facts.dead if job.id not in facts.living}
    deleted = gone | {job.id: job for job in facts.earlier}
    others = [job for job in (*facts.earlier, *facts.before) if job.id not in gone]
    stay = [job for job in gone.values() if job.id in facts.tried or job.id in facts.needed]
    ways = {job.id: _way(job, deleted) for job in (*others, *stay)}
    links = set[str]().union(*ways.values())
    failed = JobState.FAILED.value
    states = [_row(job, failed, _marked(job.progress)) for job in facts.dead if job.id in facts.living]
    for job in gone.values():
        if job.id in links or ways.get(job.id):
            states.append(_row(job, failed, job.progress))
        elif job.id in ways:
            states.append(_row(job, failed, with_successor(job.progress, DELETED)))
    ends = [job for job in others if not ways[job.id]]
    states += [_row(job, job.state, with_successor(job.progress, _no_heir_of(job))) for job in ends]
    return Rows(
        states=[row for row in states if row[0] not in facts.forgotten],
        deletes=[job.seq for job in gone.values() if job.id not in links | ways.keys()],
        free_keys=[*facts.free],
    )


def _way(first: StoredJob, deleted: Mapping[str, StoredJob]) -> set[str]:
    """Return the successors on the way from a job to one that is not deleted; none if there is no such way."""
    way: set[str] = set()
    heir = successor_of(first.progress)
    while heir and heir not in way:  # a damaged row might lead in a circle
        way.add(heir)
        if heir not in deleted:
            return way
        heir = successor_of(deleted[heir].progress)
    return set()


def _marked(progress: bytes) -> bytes:
    """Return the Progress of a deleted job, marked so that no retry of its batch repeats it."""
    return progress if has_successor(progress) else with_successor(progress, DELETED)


def _no_heir_of(job: StoredJob) -> str:
    """Return what to name instead of a successor that was deleted: only a dead letter may be repeated once more."""
    return "" if job.state == JobState.DEAD_LETTER else DELETED


def _row(job: StoredJob, state: str, progress: bytes) -> StateRow:
    return job.seq, state, progress, end_in(progress, _LONG_AGO)
