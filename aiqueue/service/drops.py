"""Batches that are being dropped: no call sees them, and a submit that names them again waits until they are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence, Set

from aiqueue.engine import QueueEngine
from aiqueue.engine.drops import is_of
from aiqueue.engine.group import Group
from aiqueue.engine.records import JobRecord
from aiqueue.errors import QueueUnavailable
from aiqueue.journal.base import Journal
from aiqueue.protocol import SubmitGroup
from aiqueue.service.commits import Committed

_log = logging.getLogger(__name__)


class Drops:
    """What is being dropped in one queue."""

    def __init__(self, engine: QueueEngine, journal: Journal, settled: Callable[[], Committed]) -> None:
        self._live, self._groups = engine.core.live, engine.core.groups
        self._journal, self._settled = journal, settled
        # Gone from memory; and the commit that takes them off the disk.
        self._leaving: list[tuple[Group, Committed]] = []
        self._waiting: dict[int, tuple[Group, asyncio.Future[None]]] = {}  # by number of the batch

    @property
    def under_way(self) -> list[Group]:
        """The batches that are being dropped, until the disk has nothing of them: nearly always none."""
        self._take_gone()
        if self._leaving:
            self._leaving = [(group, commit) for group, commit in self._leaving if not commit.done()]
        dropping = [group for group in self._groups.stopping.values() if group.stored.dropped]
        return dropping + [group for group, _ in self._leaving]

    def _take_gone(self) -> None:
        if self._groups.dropped:
            settled = self._settled()
            self._leaving += [(group, settled) for group in self._groups.dropped]
            self._groups.dropped.clear()

    def hides(self, job: JobRecord | None) -> bool:
        """Return True for a live job of such a batch."""
        return job is not None and self._groups.drops(job)

    async def gone(self, group: Group) -> None:
        """Return when a batch that is being dropped has left memory. Raises QueueUnavailable if the queue stops."""
        if self._groups.live.get(group.spec.id) is group:
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiting.setdefault(group.no, (group, gone))[1])

    def tick(self) -> None:
        """Answer those that wait for a batch that is gone by now. Its id may be another batch's already."""
        self._take_gone()
        for number, (group, gone) in list(self._waiting.items()):
            if self._groups.live.get(group.spec.id) is not group:
                del self._waiting[number]
                gone.set_result(None)

    def close(self) -> None:
        """Fail the calls that wait."""
        for _, gone in self._waiting.values():
            gone.set_exception(QueueUnavailable("the queue is being stopped"))
            gone.exception()  # seen: the caller may have gone away
        self._waiting.clear()

    async def let_pass(self, groups: Sequence[SubmitGroup], may_be_known: Callable[[SubmitGroup], bool]) -> None:
        """Return when no batch is being dropped whose id, jobs or key one of these groups names.

        Without this wait they would be refused as taken, or answered as accepted and then forgotten. Only groups that
        ``may_be_known``, and the jobs that others need, are looked up on disk.
        """
        while dropping := self.under_way:
            met = self._met(groups, dropping)
            if not met:
                met = await self._met_on_disk(groups, may_be_known, dropping)
            if not met:
                return
            for group in met:
                await self.gone(group)
            await asyncio.shield(self._settled())

    def _met(self, groups: Sequence[SubmitGroup], dropping: Sequence[Group]) -> list[Group]:
        batches = {group.batch.id for group in groups if group.batch is not None}
        for job_id in _jobs_of(groups):
            if job := self._live.get(job_id):
                batches.add(job.batch_id)
        batches.update(job.header.batch_id for group in groups for job in group.jobs)
        return [group for group in dropping if group.spec.id in batches]

    async def _met_on_disk(
        self, groups: Sequence[SubmitGroup], may_be_known: Callable[[SubmitGroup], bool], dropping: Sequence[Group]
    ) -> list[Group]:
        known = [group for group in groups if may_be_known(group)]
        ids = _jobs_of(known) | _needs_of(groups)
        keys = {job.header.idempotency_key for group in known for job in group.jobs} - {""}
        if not ids and not keys:
            return []
        await asyncio.shield(self._settled())
        try:
            seqs, numbers = await asyncio.to_thread(self._read, list(ids), list(keys))
        except Exception as error:  # whose row that is, and who is refused for it, the look-ups find out
            _log.warning(
                "rows of %d submits can't be read, so they wait for each batch dropped: %s", len(groups), error
            )
            return list(dropping)
        return [group for group in dropping if group.no in numbers or any(is_of(group, seq) for seq in seqs)]

    def _read(self, ids: Sequence[str], keys: Sequence[str]) -> tuple[list[int], set[int | None]]:
        """Return the seqs of jobs, and the numbers of the batches that keys were used for."""
        used = self._journal.keys(keys) if keys else {}
        ids = [*ids, *(key.job_id for key in used.values())]
        jobs = self._journal.jobs(ids, with_result=False).values()
        return [job.seq for job in jobs], {key.batch for key in used.values()}


def is_of_any(groups: Iterable[Group], seq: int) -> bool:
    """Return True if one of these open batches has, or had, the job with this seq."""
    return any(is_of(group, seq) for group in groups)


def _jobs_of(groups: Iterable[SubmitGroup]) -> Set[str]:
    return {job.id for group in groups for job in group.jobs} | _needs_of(groups)


def _needs_of(groups: Iterable[SubmitGroup]) -> Set[str]:
    return {need.job_id for group in groups for job in group.jobs for need in job.header.needs}
