"""Finds the job that replaces a failed one: its retry or redrive, or the last in a row of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from aiqueue.engine import TERMINAL, QueueEngine
from aiqueue.engine.states import JobState
from aiqueue.engine.successors import successor_of
from aiqueue.journal.base import Journal
from aiqueue.service.commits import Committed
from aiqueue.service.portions import portions
from aiqueue.service.row_reads import read_each

_MOST_STEPS = 100  # from a job to its last successor, each one a redrive or retry; a damaged row might lead in a circle
_DONE = TERMINAL - {JobState.COMPLETED}


class Successors:
    """Finds the last successors of jobs in the journal."""

    def __init__(self, engine: QueueEngine, journal: Journal, settled: Callable[[], Committed]) -> None:
        self._engine, self._journal, self._settled = engine, journal, settled

    async def last(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return the last successors of those jobs that have any, live, ended or forgotten.

        A row that can't be read or decoded names none.
        """
        found: dict[str, str] = {}
        heads = {job_id: [job_id] for job_id in job_ids}  # jobs asked for, by the last one known to be in their place
        for _ in range(_MOST_STEPS):
            ended = [job_id for job_id in heads if not self._engine.knows(job_id)]
            if not ended:
                break
            await asyncio.shield(self._settled())
            following = await asyncio.to_thread(self._following, ended)
            step: dict[str, list[str]] = {}
            for job_id, successor in following.items():
                step.setdefault(successor, []).extend(heads[job_id])
            for successor, asked in step.items():
                found |= dict.fromkeys(asked, successor)
            heads = step
        return found

    async def living(self, job_ids: Collection[str]) -> set[str]:
        """Return those jobs whose last successors live or have completed, or can't be read and may have."""
        last = await self.last(job_ids)
        states, unread = await asyncio.to_thread(read_each, self._journal.states, list(set(last.values())))
        living = {job_id for job_id, state in states.items() if state not in _DONE} | unread.keys()
        return {job_id for job_id, successor in last.items() if successor in living}

    def _following(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return the successor of each job that ended without a result and has one."""
        states, _ = read_each(self._journal.states, list(job_ids))
        failed = [job_id for job_id, state in states.items() if state in _DONE]
        sizes = partial(self._journal.weights, with_payload=False, with_result=False)
        read = partial(self._journal.jobs, with_result=False)
        found: dict[str, str] = {}
        for portion in portions(failed, sizes):
            rows, _ = read_each(read, portion)
            found |= {job.id: successor for job in rows.values() if (successor := successor_of(job.progress))}
        return found
