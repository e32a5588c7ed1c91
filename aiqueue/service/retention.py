"""Forgetting jobs that have ended: by age and by count, so few rows and bytes per commit that nothing else waits.

Nor does it read what it will not delete: no job ends before it was accepted, and seqs are in the order of acceptance.
So what may be too old ends at a seq that a few look-ups find, and how many jobs are kept is a number the journal has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from aiqueue.config import RetentionConfig
from aiqueue.engine.effects import Effects, Rows
from aiqueue.engine.records import decode_progress
from aiqueue.journal.base import EndedRow, Journal
from aiqueue.protocol import decode_header
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline

_log = logging.getLogger(__name__)
_STEP = 500  # jobs read, and at most deleted, at once
_STEP_BYTES = 8 * 2**20  # of payloads and results; some 40 ms
_REST_S = 60.0  # between two passes
_ALL = 2**62  # more than any seq


class Retention:
    """Walks over the oldest ended jobs in the order they were accepted, again and again. ``tick`` starts the next step.

    ``count_live`` says how many jobs have not ended.
    """

    def __init__(
        self,
        config: RetentionConfig,
        journal: Journal,
        commits: CommitPipeline,
        clock: Clock,
        count_live: Callable[[], int],
    ) -> None:
        self._config, self._journal, self._commits, self._clock = config, journal, commits, clock
        self._count_live = count_live
        self._after_seq = 0
        self._young_seq = 0  #: jobs from here on were accepted too late to be too old
        self._excess = 0  # jobs beyond the limit of their number, at the start of this pass
        self._next_pass_at = 0.0
        self._step_task: asyncio.Task[None] | None = None

    def tick(self) -> None:
        """Start a step if it is time for one and none is under way."""
        idle = self._step_task is None or self._step_task.done()
        if idle and self._clock.now() >= self._next_pass_at:
            self._step_task = asyncio.create_task(self._steps())

    async def close(self) -> None:
        """End the step under way: what it would delete could not be committed any more."""
        if self._step_task is not None:
            self._step_task.cancel()
            await asyncio.wait([self._step_task])

    async def _steps(self) -> None:
        while await self._step():  # a step full of deletes: more is waiting than one per tick can keep up with
            pass

    async def _step(self) -> bool:
        """Look at the next rows; return whether all of them were deleted and there may be more."""
        try:
            if self._after_seq == 0:
                kept = await asyncio.to_thread(self._journal.count_jobs) - self._count_live()
                self._excess = max(0, kept - self._config.max_jobs)
                accepted_by = self._clock.now() - self._config.max_age_s
                self._young_seq = await asyncio.to_thread(self._first_accepted_after, accepted_by)
            before = _ALL if self._excess else self._young_seq
            rows = await asyncio.to_thread(
                self._journal.ended, after_seq=self._after_seq, before_seq=before, limit=_STEP
            )
            self._after_seq = rows[-1].seq if len(rows) == _STEP else 0
            if not self._after_seq:
                self._next_pass_at = self._clock.now() + _REST_S
            over = [row.seq for row in rows if self._is_over(row)]
            await self._forget_jobs(over)
            if not self._after_seq:
                await self._forget_keys_and_batches()
            return len(over) == _STEP and bool(self._after_seq)
        except Exception as error:  # the journal's own: OSError, the database's error
            self._next_pass_at = self._clock.now() + _REST_S
            _log.warning("ended jobs could not be deleted, the next try is in %g s: %s", _REST_S, error)
            return False

    def _first_accepted_after(self, at: float) -> int:
        """Return the seq from which on jobs were accepted after ``at``: a few look-ups from where it was before."""
        low, step = self._young_seq, 1  # all before low were accepted earlier
        while (found := self._journal.first_header(from_seq=low + step)) and decode_header(found[1]).created_at <= at:
            low, step = found[0], step * 2
        high = low + step
        while low < high:
            middle = (low + high) // 2
            found = self._journal.first_header(from_seq=middle)
            if found and decode_header(found[1]).created_at <= at:
                low = found[0] + 1
            else:
                high = middle
        return low

    def _is_over(self, row: EndedRow) -> bool:
        if self._excess > 0:
            self._excess -= 1
            return True
        return decode_progress(row.progress).finished_at < self._clock.now() - self._config.max_age_s

    async def _forget_jobs(self, seqs: list[int]) -> None:
        """Delete jobs, those with large payloads or results a few at a time: their pages are freed one by one."""
        sizes = await asyncio.to_thread(self._journal.sizes, seqs) if seqs else {}
        part: list[int] = []
        weight = 0
        for seq in seqs:
            size = sizes.get(seq, 0)
            if part and weight + size > _STEP_BYTES:
                await self._forget(Rows(deletes=part))
                part, weight = [], 0
            part.append(seq)
            weight += size
        if part:
            await self._forget(Rows(deletes=part))

    async def _forget(self, rows: Rows) -> None:
        await asyncio.shield(self._commits.append(Effects(rows=rows)))

    async def _forget_keys_and_batches(self) -> None:
        """After a pass over the jobs: a commit forgets only so many, so again and again until there are no more."""
        keys_before = max(0.0, self._clock.now() - self._config.idempotency_s)
        batches_before = max(0.0, self._clock.now() - self._config.max_age_s)
        has_older = partial(self._journal.has_older, keys_before=keys_before, batches_before=batches_before)
        while await asyncio.to_thread(has_older):
            await self._forget(Rows(keys_before=keys_before, batches_before=batches_before))
