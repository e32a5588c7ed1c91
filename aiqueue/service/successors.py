"""Finds the job that replaces a failed one: its retry or redrive, which its row names, or the last in a row of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import NamedTuple

from aiqueue.engine import TERMINAL, QueueEngine
from aiqueue.engine.states import JobState
from aiqueue.engine.successors import is_clear, successor_of
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import JobHeader, header_of
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.portions import portions
from aiqueue.service.row_reads import read_each

MOST_STEPS = 100  #: from a job to its last successor, each one a redrive or retry; a damaged row might lead in a circle
_DONE = TERMINAL - {JobState.COMPLETED}


class Repeat(NamedTuple):
    """What a job repeats."""

    job_id: str
    batch_id: str  #: of the job that repeats it: a retry is in the batch of what it repeats, a redrive is not


class _Way(NamedTuple):
    """What was found on the way from jobs to their last successors."""

    last: dict[str, str]  #: the last successors that are known, or the next ones after one step
    failed: set[str]  #: jobs at the end of whose way one failed that names no successor
    unclear: set[str]  #: jobs that may have another successor behind the last one that is known
    seqs: set[int]  #: of rows that were read


class Successors:
    """Finds the last successors of jobs in the journal."""

    def __init__(self, engine: QueueEngine, journal: Journal, commits: CommitPipeline) -> None:
        self._engine, self._journal, self._commits = engine, journal, commits

    async def last(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return the last successors of those jobs that have any, live, ended or forgotten.

        A row that can't be read or decoded names none.
        """
        return (await self._follow(job_ids)).last

    async def living(self, job_ids: Collection[str]) -> tuple[set[str], set[int]]:
        """Return those jobs whose work is not to be done again: a successor lives or has completed, or may have.

        It may have if a row on the way can't be read or decoded, or if the last successor is not kept: then retention
        took it, as a deletion changes the row that names it. One that lived when this came to it counts as living: it
        may have ended since and been repeated.

        Return also the seqs of the rows that were read: a change of one of them may change the answer.
        """
        way = await self._follow(job_ids)
        return way.unclear | (way.last.keys() - way.failed), way.seqs

    async def predecessors(self, repeats: Mapping[str, Repeat]) -> tuple[list[StoredJob], list[StoredJob]]:
        """Return the jobs that name these as their successors: those that are deleted already, and the others.

        What leads to a job that is deleted already is among them too. One that can't be read or decoded is left out.
        """
        return await self._commits.read(self._predecessors, repeats)

    def _predecessors(self, repeats: Mapping[str, Repeat]) -> tuple[list[StoredJob], list[StoredJob]]:
        deleted: list[StoredJob] = []
        others: list[StoredJob] = []
        for _ in range(MOST_STEPS):
            behind: dict[str, Repeat] = {}
            for job in self._read({repeat.job_id for repeat in repeats.values()}):
                repeat = repeats.get(successor_of(job.progress))
                if repeat is None or repeat.job_id != job.id:  # another redrive has taken the place of this one
                    continue
                header = header_of(job.header)
                is_retried = bool(repeat.batch_id) and header is not None and header.batch_id == repeat.batch_id
                is_deleted = job.state == JobState.FAILED and not is_retried
                (deleted if is_deleted else others).append(bare(job))
                if is_deleted and (again := repeat_of(header)):
                    behind[job.id] = again
            if not behind:
                break
            repeats = behind
        return deleted, others

    async def _follow(self, job_ids: Collection[str]) -> _Way:
        way = _Way({}, set(), set(), set())
        heads = {job_id: [job_id] for job_id in job_ids}  # jobs asked for, by the last one known to be in their place
        for _ in range(MOST_STEPS):
            ended = [job_id for job_id in heads if not self._engine.knows(job_id)]
            if not ended:
                return way
            await asyncio.shield(self._commits.settled())
            step = await self._commits.read(self._following, ended)
            way.seqs.update(step.seqs)
            way.failed.update(chain.from_iterable(heads[job_id] for job_id in step.failed))
            way.unclear.update(chain.from_iterable(heads[job_id] for job_id in step.unclear))
            ahead: dict[str, list[str]] = {}
            for job_id, successor in step.last.items():
                ahead.setdefault(successor, []).extend(heads[job_id])
            for successor, asked in ahead.items():
                way.last.update(dict.fromkeys(asked, successor))
            heads = ahead
        way.unclear.update(*heads.values())
        return way

    async def followed(self, job_ids: Collection[str]) -> tuple[set[str], set[str]]:
        """Return the failed jobs of which a successor is kept, however that ended; and those that can't be read.

        A successor that can't be read is kept. Rows that are not on disk yet are not read.
        """
        return await self._commits.read(self._followed, job_ids)

    def _followed(self, job_ids: Collection[str]) -> tuple[set[str], set[str]]:
        step = self._following(job_ids)
        named = step.last
        states, broken = read_each(self._journal.states, list(set(named.values()))) if named else ({}, {})
        return {job_id for job_id, heir in named.items() if heir in states or heir in broken}, step.unclear

    def _following(self, job_ids: Collection[str]) -> _Way:
        """Go one step on the way from each job that ended without a result."""
        states, unread = read_each(self._journal.states, list(job_ids))
        failed = [job_id for job_id, state in states.items() if state in _DONE]
        rows = self._ended(failed)
        found = {job.id: successor for job in rows.values() if (successor := successor_of(job.progress))}
        clear = {job.id for job in rows.values() if is_clear(job.progress)}
        seqs = {job.seq for job in rows.values()}
        return _Way(found, clear - found.keys(), unread.keys() | set(failed) - clear, seqs)

    def _ended(self, job_ids: Collection[str]) -> dict[str, StoredJob]:
        """Return the rows of jobs that ended, as far as they can be read."""
        return {job.id: bare(job) for job in self._read(job_ids)}

    def _read(self, job_ids: Collection[str]) -> Iterator[StoredJob]:
        sizes = partial(self._journal.weights, with_payload=False, with_result=False)
        read = partial(self._journal.jobs, with_result=False)
        for portion in portions(list(job_ids), sizes):
            rows, _ = read_each(read, portion)
            yield from rows.values()


def repeat_of(header: JobHeader | None) -> Repeat | None:
    """Return what a job repeats by its header, which may be unreadable."""
    return Repeat(header.redriven_from, header.batch_id) if header and header.redriven_from else None


def bare(job: StoredJob) -> StoredJob:
    """Return a row without what is large and says nothing of successors."""
    return job._replace(header=b"", metadata=b"")
