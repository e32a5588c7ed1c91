"""Finds the next try of a failed job, which ``map`` makes in its place.

It is made in a batch that may still be dropped, so no row names it. But its id follows from the failed job's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from aiqueue.engine import QueueEngine
from aiqueue.engine.effects import Rows
from aiqueue.ids import is_derived, next_try_of
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import header_of
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.portions import portions
from aiqueue.service.row_reads import read_each
from aiqueue.service.successors import MOST_STEPS


def has_live_next_try(engine: QueueEngine, job_id: str) -> bool:
    """Return True if ``map`` has put a job in this one's place that has not ended."""
    return is_derived(job_id) and engine.knows(next_try_of(job_id))


def next_tries_of(job_ids: Iterable[str]) -> dict[str, str]:
    """Return by job the id that its next try has or would have: of those jobs that ``map`` may have made."""
    return {job_id: next_try_of(job_id) for job_id in job_ids if is_derived(job_id)}


def accepted_tries(tries: Mapping[str, str], later: Iterable[Rows]) -> set[str]:
    """Return the jobs of ``tries`` whose next try is among the jobs of these commits, which a read may have missed."""
    wanted = set(tries.values())
    accepted: set[str] = set()
    for rows in later if wanted else ():
        accepted |= wanted.intersection(row[1] for row in rows.jobs)
        for part in rows.lists:
            accepted |= wanted & part.ids  # may be a view, all of which ``intersection`` walks
    return {job_id for job_id, next_try in tries.items() if next_try in accepted}


class NextTries:
    """Finds next tries in the journal, live or ended. One that can't be read is there.

    It does not see those that are accepted while it reads: ``accepted_tries`` does.
    """

    def __init__(self, journal: Journal, commits: CommitPipeline) -> None:
        self._journal, self._commits = journal, commits

    async def kept(self, job_ids: Collection[str]) -> set[str]:
        """Return the jobs whose next try is kept. One that is not on disk yet is not found."""
        tries = next_tries_of(job_ids)
        return await self._commits.read(self._that_have, tries) if tries else set()

    async def tried_again(self, jobs: Sequence[StoredJob]) -> tuple[set[str], dict[str, str]]:
        """Return the jobs in whose place ``map`` has put another; and by job the id that such a one has or would have.

        It is the next try of what they repeat: jobs come with their headers, which say that.
        """
        await asyncio.shield(self._commits.settled())
        return await self._commits.read(self._tried_again, jobs)

    def _tried_again(self, jobs: Sequence[StoredJob]) -> tuple[set[str], dict[str, str]]:
        first = self._first(jobs)
        next_tries = next_tries_of(first.values())
        tries = {job_id: next_tries[one] for job_id, one in first.items() if one in next_tries}
        return self._that_have(tries), tries

    def _that_have(self, tries: dict[str, str]) -> set[str]:
        states, broken = read_each(self._journal.states, list(set(tries.values()))) if tries else ({}, {})
        return {job_id for job_id, next_try in tries.items() if next_try in states or next_try in broken}

    def _first(self, jobs: Sequence[StoredJob]) -> dict[str, str]:
        """Return the job that each of some jobs repeats, at last; a job that repeats none is its own."""
        first = {job.id: job.id for job in jobs}
        behind = {job.id: [job.id] for job in jobs}  # jobs asked for, by the one that they repeat as far as is known
        repeated = _repeated_by(jobs)
        for _ in range(MOST_STEPS):
            step: dict[str, list[str]] = {}
            for job_id, other in repeated.items():
                step.setdefault(other, []).extend(behind[job_id])
            if not step:
                break
            for other, asked in step.items():
                first |= dict.fromkeys(asked, other)
            repeated, behind = self._read_repeated(list(step)), step
        return first

    def _read_repeated(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Return what jobs repeat, as far as they repeat any and can be read."""
        sizes = partial(self._journal.weights, with_payload=False, with_result=False)
        read = partial(self._journal.jobs, with_result=False)
        found: dict[str, str] = {}
        for portion in portions(job_ids, sizes):
            rows, _ = read_each(read, portion)
            found |= _repeated_by(rows.values())
        return found


def _repeated_by(jobs: Iterable[StoredJob]) -> dict[str, str]:
    headers = {job.id: header_of(job.header) for job in jobs}
    return {job_id: header.redriven_from for job_id, header in headers.items() if header and header.redriven_from}
