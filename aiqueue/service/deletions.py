"""What a deletion of dead letters writes: decided from what was read of them, without reading anything itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
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
    before: Sequence[StoredJob] = ()  #: jobs that name one of these as their successor
    living: Set[str] = frozenset()  #: those whose work goes on, or was done, in another job, or may
    tried: Set[str] = frozenset()  #: those that ``map`` has tried again
    needed: Set[str] = frozenset()  #: those that a job needs that has not ended
    free: Sequence[tuple[str, str]] = ()  #: keys that stand for nothing else, and the jobs that they name
    forgotten: Set[int] = frozenset()  #: seqs that retention has deleted meanwhile


def rows_of_deletion(facts: Facts) -> Rows:
    """Return what the deletion writes. What is kept of it is a failed job from now on."""
    gone = {job.id: job for job in facts.dead if job.id not in facts.living}
    links, ends = _links_among(gone, facts.before)
    kept = facts.living | links | facts.tried
    needed = facts.needed - kept
    failed = JobState.FAILED.value
    states = [
        *(_row(job, failed, _marked(job.progress)) for job in facts.dead if job.id in kept),
        *(_row(job, failed, with_successor(job.progress, DELETED)) for job in facts.dead if job.id in needed),
        *(_row(job, job.state, with_successor(job.progress, _no_heir_of(job))) for job in ends),
    ]
    return Rows(
        states=[row for row in states if row[0] not in facts.forgotten],
        deletes=[job.seq for job in gone.values() if job.id not in kept | needed],
        free_keys=[*facts.free],
    )


def _links_among(gone: Mapping[str, StoredJob], before: Iterable[StoredJob]) -> tuple[set[str], list[StoredJob]]:
    """Return which deleted jobs lead from a job to one of its successors; and the jobs that no longer have any."""
    links: set[str] = set()
    ends: list[StoredJob] = []
    for first in before:
        if first.id in gone:
            continue
        path: dict[str, None] = {}
        heir = successor_of(first.progress)
        while heir in gone and heir not in path:  # a damaged row might lead in a circle
            path[heir] = None
            heir = successor_of(gone[heir].progress)
        if heir:
            links |= path.keys()
        else:
            ends.append(first)
    return links, ends


def _marked(progress: bytes) -> bytes:
    """Return the Progress of a deleted job, marked so that no retry of its batch repeats it."""
    return progress if has_successor(progress) else with_successor(progress, DELETED)


def _no_heir_of(job: StoredJob) -> str:
    """Return what to name instead of a successor that was deleted: only a dead letter may be repeated once more."""
    return "" if job.state == JobState.DEAD_LETTER else DELETED


def _row(job: StoredJob, state: str, progress: bytes) -> StateRow:
    return job.seq, state, progress, end_in(progress, _LONG_AGO)
