"""Forgetting jobs that have ended: by age and by count, a few hundred rows per commit, so that nothing else waits."""

from __future__ import annotations

import asyncio
import logging

from aiqueue.config import RetentionConfig
from aiqueue.engine.effects import Effects, Rows
from aiqueue.engine.records import decode_progress
from aiqueue.errors import AIQueueError
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
            self._step_task = asyncio.create_task(self._step())

    async def _step(self) -> None:
        try:
            if self._after_seq == 0:
                kept = await asyncio.to_thread(self._journal.count_ended)
                self._excess = max(0, kept - self._config.max_jobs)
            rows = await asyncio.to_thread(self._journal.ended, after_seq=self._after_seq, limit=_STEP)
            self._after_seq = rows[-1].seq if len(rows) == _STEP else 0
            if not self._after_seq:
                self._next_pass_at = self._clock.now() + _REST_S
            await self._forget([row.seq for row in rows if self._is_over(row)], last=not self._after_seq)
        except (OSError, AIQueueError) as error:
            self._next_pass_at = self._clock.now() + _REST_S
            _log.warning("ended jobs could not be deleted, the next try is in %g s: %s", _REST_S, error)

    def _is_over(self, row: EndedRow) -> bool:
        if self._excess > 0:
            self._excess -= 1
            return True
        return decode_progress(row.progress).finished_at < self._clock.now() - self._config.max_age_s

    async def _forget(self, seqs: list[int], *, last: bool) -> None:
        keys_before = self._clock.now() - self._config.idempotency_s if last else 0.0
        if seqs or keys_before > 0:
            await asyncio.shield(self._commits.append(Effects(rows=Rows(deletes=seqs, keys_before=keys_before))))
