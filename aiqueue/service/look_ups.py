"""Jobs as they are on disk, for those who ask by id. A row that can't be read or decoded hides no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from aiqueue.call_size import PART_BYTES, count_within, size_of_view
from aiqueue.engine import TERMINAL, QueueEngine
from aiqueue.engine.soundness import check_header
from aiqueue.engine.states import JobState
from aiqueue.errors import QueueUnavailable
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import JobView
from aiqueue.service import lookup
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.drops import Drops, is_of_any
from aiqueue.service.row_reads import NotInOne, RowReads
from aiqueue.service.shown_times import show_job

_log = logging.getLogger(__name__)


class LookUps:
    """Look-ups in one journal. They hide what is being dropped."""

    def __init__(
        self,
        engine: QueueEngine,
        journal: Journal,
        commits: CommitPipeline,
        drops: Drops,
    ) -> None:
        self._engine, self._journal, self._commits, self._drops = engine, journal, commits, drops
        self.reads = RowReads(journal, engine.core.live, commits)

    async def get(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        """Return jobs in the order of ``ids``; None for those unknown. Of many large ones it returns the first."""
        broken: dict[str, Exception] = {}
        try:
            stored = await self._kept(ids, partial(self.reads.jobs_in_one, with_payload=with_payload))
        except NotInOne:
            ids = await self._first_of(ids, with_payload=with_payload)
            stored = await self._kept(ids, partial(self._read, broken=broken, with_payload=with_payload))
        attempts: dict[int, list[bytes]] = {}
        if tried := {job.id: job for job in stored.values() if lookup.has_history(job)}:
            ids = await self._within_a_part(ids, stored, tried)
            attempts, _ = await self.reads.attempts([tried[job_id].seq for job_id in ids if job_id in tried])
        live, hides = self._engine.core.live, self._drops.hides
        broken = {job_id: error for job_id, error in broken.items() if not hides(live.get(job_id))}
        shown = {job_id: await self._unreadable(job_id, error) for job_id, error in broken.items()}
        shown |= {job.id: self.view(job, attempts.get(job.seq)) for job in stored.values()}
        views = [shown.get(job_id) for job_id in ids]
        return views[: count_within(map(size_of_view, views), PART_BYTES)]

    async def _first_of(self, ids: Sequence[str], *, with_payload: bool) -> Sequence[str]:
        """Return the first ids, as many as one answer has room for."""
        if len(ids) == 1:
            return ids
        weights, _ = await self.reads.weights(ids, with_payload=with_payload)
        return ids[: count_within((weights.get(job_id, 1) for job_id in ids), PART_BYTES)]

    async def _read(
        self, ids: Sequence[str], *, broken: dict[str, Exception], with_payload: bool
    ) -> dict[str, StoredJob]:
        """Return jobs that are on disk, and add to ``broken`` the error of each that can't be read."""
        found, errors = await self.reads.jobs(ids, with_payload=with_payload)
        broken.update(errors)
        return found

    async def _kept(
        self, ids: Sequence[str], read: Callable[[Sequence[str]], Awaitable[dict[str, StoredJob]]]
    ) -> dict[str, StoredJob]:
        """Return jobs that are on disk, without those of a batch that is being dropped."""
        live, dropping = self._engine.core.live, self._drops.under_way
        await asyncio.shield(self._commits.settled())
        found = await read(ids)
        unsure = [job.id for job in found.values() if job.state not in TERMINAL and job.id not in live]
        if unsure:  # dropped, or ended, since they were read
            for job_id in unsure:
                del found[job_id]
            await asyncio.shield(self._commits.settled())
            found |= await read(unsure)
        if dropping := [*dropping, *self._drops.under_way]:
            return {job_id: job for job_id, job in found.items() if not is_of_any(dropping, job.seq)}
        return found

    async def _within_a_part(
        self, ids: Sequence[str], stored: Mapping[str, StoredJob], tried: Mapping[str, StoredJob]
    ) -> Sequence[str]:
        """Return the first ids, as many as one answer has room for with the attempts of those ``tried``."""
        attempts = await self.reads.attempt_sizes([job.seq for job in tried.values()])
        weights = {job_id: job.weight + attempts.get(job.seq, 0) for job_id, job in stored.items()}
        return ids[: count_within((weights.get(job_id, 1) for job_id in ids), PART_BYTES)]

    def view(self, stored: StoredJob, attempts: list[bytes] | None = None) -> JobView:
        """Return a job as it is shown. If its row can't be decoded, most fields are placeholders: never rerun it."""
        job = self._engine.core.live.get(stored.id)
        try:
            view = self._decoded(stored, attempts)
        except Exception as error:  # the row can't be decoded
            return lookup.unreadable(stored.id, stored.state, error, job, self._engine.core.policy.sla_ms)
        if not stored.state and job:  # blocked jobs have no row that says so
            view.status = job.state.value if job.state is JobState.BLOCKED else view.status
        return view

    def decoded(self, stored: StoredJob) -> JobView | None:
        """Return an ended job, to make another one like it; None if it can't be decoded or has an impossible value."""
        try:
            view = self._decoded(stored, None)
            check_header(stored.id, view.header, len(self._engine.core.levels))
            return view
        except Exception as error:
            _log.error("job %s: its row in the journal can't be decoded: %s", stored.id, error)
            return None

    def _decoded(self, stored: StoredJob, attempts: list[bytes] | None) -> JobView:
        view = lookup.view_of(stored, self._engine.core.policy.sla_ms, attempts)
        return show_job(view, self._engine.core.ahead_s)

    async def _unreadable(self, job_id: str, error: Exception) -> JobView:
        try:
            state = (await self._commits.read(self._journal.states, [job_id])).get(job_id, "")
        except QueueUnavailable:
            raise
        except Exception:
            state = ""
        core = self._engine.core
        return lookup.unreadable(job_id, state, error, core.live.get(job_id), core.policy.sla_ms)
