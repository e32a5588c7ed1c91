"""Forgetting jobs that have ended: by age and by count, so few rows and bytes per commit that nothing else waits.

What ended first goes first, in the order of an index by end; so what is not over is not read. A job whose result a live
one needs is kept, however old. So is a failed one as long as its retry, its redrive or its next try by ``map`` is kept:
``map`` finds that one through it. Such jobs come on top of the last ``max_jobs``, which are kept for their own sake. An
idempotency key is kept while one of the jobs that were submitted with it, or their batch, lives, and for a day after
the last end, whatever is deleted before.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence

from aiqueue.config import RetentionConfig
from aiqueue.engine.effects import Effects, Rows
from aiqueue.journal.base import EndedRow, Journal
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.next_tries import accepted_tries, next_tries_of

_log = logging.getLogger(__name__)
_STEP = 500  # jobs read, and at most deleted, at once; keys too
_STEP_BYTES = 8 * 2**20  # of payloads and results; some 40 ms
_REST_S = 60.0  # between two passes
_FIRST = (0.0, 0)
_LOOKS = 5  # at a job that can't be read, one in each pass: after that it is forgotten, whatever it would have said


class Retention:
    """Walks over the ended jobs in the order of their ends, again and again. ``tick`` starts the next pass.

    ``count_live`` says how many jobs have not ended, ``is_needed`` whether one of them needs the job of an id.
    ``followed`` returns which of some jobs failed and have a successor that is kept, and which of them can't be read;
    ``tried_again`` which have a next try that is kept.
    """

    def __init__(
        self,
        config: RetentionConfig,
        journal: Journal,
        commits: CommitPipeline,
        clock: Clock,
        count_live: Callable[[], int],
        is_needed: Callable[[str], bool],
        followed: Callable[[Collection[str]], Awaitable[tuple[set[str], set[str]]]],
        tried_again: Callable[[Collection[str]], Awaitable[set[str]]],
    ) -> None:
        self._config, self._journal, self._commits, self._clock = config, journal, commits, clock
        self._count_live, self._is_needed = count_live, is_needed
        self._followed, self._tried_again = followed, tried_again
        self._looks: dict[str, int] = {}  # by job that can't be read: in how many passes it was looked at
        self._after = _FIRST  #: time and seq of the last job looked at
        self._excess = 0  # of the next jobs, as many are beyond the limit of their number
        self._next_pass_at = 0.0
        self._step_task: asyncio.Task[None] | None = None

    def tick(self) -> None:
        """Start a pass if it is time for one and none is under way."""
        idle = self._step_task is None or self._step_task.done()
        if idle and self._clock.now() >= self._next_pass_at:
            self._step_task = asyncio.create_task(self._pass())

    async def close(self) -> None:
        """End the step under way: what it would delete could not be committed any more."""
        if self._step_task is not None:
            self._step_task.cancel()
            await asyncio.wait([self._step_task])

    async def _pass(self) -> None:
        for what in (self._forget_ended, self._forget_keys, self._forget_batches):
            try:
                await what()
            except Exception as error:  # the journal's own: OSError, the database's error
                _log.warning("retention failed, and tries again in %g s: %s", _REST_S, error)
        self._next_pass_at = self._clock.now() + _REST_S

    async def _forget_ended(self) -> None:
        with self._commits.watched() as later:
            kept = await asyncio.to_thread(self._journal.count_jobs) - self._count_live()
        kept -= sum(len(commit.deletes) for commit in later)  # no longer live, or soon gone: else others would go too
        self._excess, self._after = max(0, kept - self._config.max_jobs), _FIRST
        while await self._step():
            pass

    async def _step(self) -> bool:
        """Delete the next jobs; return whether there may be more."""
        too_old = self._clock.now() - self._config.max_age_s
        before = math.inf if self._excess else too_old
        rows = await asyncio.to_thread(self._journal.ended, after=self._after, before=before, limit=_STEP)
        due, passed = self._due(rows, too_old)
        await self._forget_jobs(due)
        self._excess = max(0, self._excess - len(passed))
        if passed:
            self._after = passed[-1].at, passed[-1].seq
        return len(passed) == _STEP

    def _due(self, rows: Sequence[EndedRow], too_old: float) -> tuple[list[EndedRow], Sequence[EndedRow]]:
        """Return which of the jobs are over by their age or number, and all that were looked at for it.

        One that stays, as another needs or replaces it, counts as one that goes: else a later one would go instead.
        """
        passed = [row for at, row in enumerate(rows) if row.at < too_old or at < self._excess]
        return [row for row in passed if not self._is_needed(row.id)], passed

    async def _kept(self, due: Sequence[EndedRow]) -> set[str]:
        """Return the jobs that are over and still kept, as what may have completed in their place is."""
        job_ids = [row.id for row in due]
        kept, unread = await self._followed(job_ids)
        kept |= await self._tried_again(job_ids)
        for job_id in unread:
            self._looks[job_id] = self._looks.get(job_id, 0) + 1
        return kept | {job_id for job_id in unread if self._looks[job_id] < _LOOKS}

    async def _forget_jobs(self, rows: Sequence[EndedRow]) -> None:
        """Delete jobs, those with large payloads or results a few at a time: their pages are freed one by one."""
        sizes = await self._sizes([row.seq for row in rows]) if rows else {}
        part: list[EndedRow] = []
        weight = 0
        for row in rows:
            size = sizes.get(row.seq, 0)
            if part and weight + size > _STEP_BYTES:
                await self._forget_part(part)
                part, weight = [], 0
            part.append(row)
            weight += size
        if part:
            await self._forget_part(part)

    async def _sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        try:
            return await asyncio.to_thread(self._journal.sizes, seqs)
        except (
            Exception
        ):  # a page of one of them is damaged: then each goes alone, and the journal leaves what it can't delete
            return dict.fromkeys(seqs, _STEP_BYTES)

    async def _forget_part(self, part: Sequence[EndedRow]) -> None:
        """Delete some jobs in one commit, except those that a job needs or repeats, also one accepted meanwhile."""
        with self._commits.watched() as later:
            kept = await self._kept(part)
        changed = {row[0] for commit in later for row in commit.states}
        kept |= accepted_tries(next_tries_of(row.id for row in part), later)
        over = [row for row in part if row.id not in kept and row.seq not in changed]
        if seqs := [row.seq for row in over if not self._is_needed(row.id)]:
            await self._forget(Rows(deletes=seqs))
            for row in over:
                self._looks.pop(row.id, None)

    async def _forget(self, rows: Rows) -> None:
        await asyncio.shield(self._commits.append(Effects(rows=rows)))

    async def _forget_keys(self) -> None:
        """Forget the keys whose day is over. One whose day began later than noted is noted anew, and not read again."""
        now = self._clock.now()
        before = max(0.0, now - self._config.idempotency_s)
        done = frozenset[str]()
        while old := await asyncio.to_thread(self._journal.old_keys, before=before, limit=_STEP, stuck=done):
            done = frozenset(key.key for key in old)
            rows = Rows()
            for key in old:
                if not key.lives and key.ended_at < before:
                    rows.free_keys.append((key.key, key.job_id))
                else:
                    rows.key_times.append((now if key.lives else key.ended_at, key.key, key.job_id))
            await self._forget(rows)

    async def _forget_batches(self) -> None:
        """A commit forgets only so many rows of ended batches, so again and again until there are no more.

        A batch is kept as long as its key: it says when the key's day begins.
        """
        kept_s = max(self._config.max_age_s, self._config.idempotency_s)
        before = max(0.0, self._clock.now() - kept_s)
        while await asyncio.to_thread(self._journal.has_older, batches_before=before):
            await self._forget(Rows(batches_before=before))
