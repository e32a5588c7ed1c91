"""Finds the next try of a failed job, which ``map`` makes in its place.

It is made in a batch that may still be dropped, so no row names it. But its id follows from the failed job's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial

from aiqueue.engine import QueueEngine
from aiqueue.ids import is_derived, next_try_of
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import header_of
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.row_reads import read_each
from aiqueue.service.successors import MOST_STEPS


def has_live_next_try(engine: QueueEngine, job_id: str) -> bool:
    """Return True if ``map`` has put a job in this one's place that has not ended."""
    return is_derived(job_id) and engine.knows(next_try_of(job_id))


class NextTries:
    """Finds next tries in the journal, live or ended. One that can't be read is there."""

    def __init__(self, journal: Journal, commits: CommitPipeline) -> None:
        self._journal, self._commits = journal, commits

    async def kept(self, job_ids: Collection[str]) -> set[str]:
        """Return the jobs whose next try is kept. One that is not on disk yet is not found."""
        tries = {job_id: next_try_of(job_id) for job_id in job_ids if is_derived(job_id)}
        return await self._commits.read(self._that_have, tries) if tries else set()

    async def tried_again(self, jobs: Sequence[StoredJob]) -> set[str]:
        """Return those jobs in whose place ``map`` has put another: the next try of what they repeat is kept."""
        await asyncio.shield(self._commits.settled())
        return await self._commits.read(self._tried_again, jobs)

    def _tried_again(self, jobs: Sequence[StoredJob]) -> set[str]:
        return self._that_have(
            {job_id: next_try_of(first) for job_id, first in self._first(jobs).items() if is_derived(first)}
        )

    def _that_have(self, tries: dict[str, str]) -> set[str]:
        states, broken = read_each(self._journal.states, list(set(tries.values()))) if tries else ({}, {})
        return {job_id for job_id, next_try in tries.items() if next_try in states or next_try in broken}

    def _first(self, jobs: Sequence[StoredJob]) -> dict[str, str]:
        """Return the job that each of some jobs repeats, at last; a job that repeats none is its own."""
        first = {job.id: job.id for job in jobs}
        behind = {job.id: [job.id] for job in jobs}  # jobs asked for, by the one that they repeat as far as is known
        for _ in range(MOST_STEPS):
            step: dict[str, list[str]] = {}
            for job in jobs:
                if (header := header_of(job.header)) and header.redriven_from:
                    step.setdefault(header.redriven_from, []).extend(behind[job.id])
            if not step:
                break
            for repeated, asked in step.items():
                first |= dict.fromkeys(asked, repeated)
            rows, _ = read_each(partial(self._journal.jobs, with_result=False), list(step))
            jobs, behind = list(rows.values()), step
        return first
