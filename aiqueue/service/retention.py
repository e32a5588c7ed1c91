"""Forgetting jobs that have ended: by age and by count, a few hundred rows per commit, so that nothing else waits."""

from __future__ import annotations

import asyncio
import logging

from aiqueue.config import RetentionConfig
from aiqueue.engine.effects import Effects, Rows
from aiqueue.engine.records import decode_progress
from aiqueue.journal.base import EndedRow, Journal
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline

_log = logging.getLogger(__name__)
_STEP = 500  # rows read, and at most deleted, at once
_REST_S = 60.0  # between two passes over all that is kept


class Retention:
    """Walks over the ended jobs in the order they were accepted, again and again. ``tick`` starts the next step."""

    def __init__(self, config: RetentionConfig, journal: Journal, commits: CommitPipeline, clock: Clock) -> None:
        self._config, self._journal, self._commits, self._clock = config, journal, commits, clock
        self._after_seq = 0
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
                kept = await asyncio.to_thread(self._journal.count_ended)
                self._excess = max(0, kept - self._config.max_jobs)
            rows = await asyncio.to_thread(self._journal.ended, after_seq=self._after_seq, limit=_STEP)
            self._after_seq = rows[-1].seq if len(rows) == _STEP else 0
            if not self._after_seq:
                self._next_pass_at = self._clock.now() + _REST_S
            over = [row.seq for row in rows if self._is_over(row)]
            await self._forget(over, last=not self._after_seq)
            return len(over) == _STEP and bool(self._after_seq)
        except Exception as error:  # the journal's own: OSError, the database's error
            self._next_pass_at = self._clock.now() + _REST_S
            _log.warning("ended jobs could not be deleted, the next try is in %g s: %s", _REST_S, error)
            return False

    def _is_over(self, row: EndedRow) -> bool:
        if self._excess > 0:
            self._excess -= 1
            return True
        return decode_progress(row.progress).finished_at < self._clock.now() - self._config.max_age_s

    async def _forget(self, seqs: list[int], *, last: bool) -> None:
        keys_before = self._clock.now() - self._config.idempotency_s if last else 0.0
        if seqs or keys_before > 0:
            await asyncio.shield(self._commits.append(Effects(rows=Rows(deletes=seqs, keys_before=keys_before))))
