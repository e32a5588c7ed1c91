"""Batches that are being dropped: no call sees them, and a submit that names them again waits until they are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from aiqueue.engine import QueueEngine
from aiqueue.engine.drops import is_of
from aiqueue.engine.group import Group
from aiqueue.engine.records import JobRecord
from aiqueue.errors import QueueUnavailable
from aiqueue.journal.base import Journal
from aiqueue.protocol import SubmitGroup
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.waiting import Pace, Parts, in_parts

_log = logging.getLogger(__name__)


class _Names(NamedTuple):
    """What a submit names: ids of batches; ids of jobs, and keys, that only the journal can tell the batch of."""

    batches: set[str]
    ids: set[str]
    keys: set[str]


class Drops:
    """What is being dropped in one queue."""

    def __init__(self, engine: QueueEngine, journal: Journal, commits: CommitPipeline) -> None:
        self._live, self._groups = engine.core.live, engine.core.groups
        self._journal, self._commits = journal, commits
        # Gone from memory; and the commit that takes them off the disk.
        self._leaving: list[tuple[Group, Committed]] = []
        self._waiting: dict[int, tuple[Group, asyncio.Future[None]]] = {}  # by number of the batch
        self._closed = False

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
            settled = self._commits.settled()
            self._leaving += [(group, settled) for group in self._groups.dropped]
            self._groups.dropped.clear()

    def hides(self, job: JobRecord | None) -> bool:
        """Return True for a live job of such a batch."""
        return job is not None and self._groups.drops(job)

    async def gone(self, group: Group) -> None:
        """Return when a batch that is being dropped has left memory. Raises QueueUnavailable if the queue stops."""
        if self._groups.live.get(group.spec.id) is group:
            if self._closed:
                raise QueueUnavailable("the queue is being stopped")
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
        """Fail the calls that wait, and those that would begin to."""
        self._closed = True
        for _, gone in self._waiting.values():
            gone.set_exception(QueueUnavailable("the queue is being stopped"))
            gone.exception()  # seen: the caller may have gone away
        self._waiting.clear()

    async def let_pass(self, groups: Sequence[SubmitGroup], may_be_known: Callable[[SubmitGroup], bool]) -> None:
        """Return when no batch is being dropped whose id, jobs or key one of these groups names.

        Without this wait they would be refused as taken, or answered as accepted and then forgotten. Only groups that
        ``may_be_known``, and the jobs that others need, are looked up on disk.
        """
        passed: set[int] = set()  # numbers of batches that they do not name
        while dropping := [group for group in self.under_way if group.no not in passed]:
            names = await in_parts(self._names_in(groups, may_be_known))
            met = [group for group in dropping if group.spec.id in names.batches]
            if not met:
                met = await self._met_on_disk(names, dropping)
            if not met:
                passed.update(group.no for group in dropping)
                continue
            for group in met:
                await self.gone(group)
            await asyncio.shield(self._commits.settled())

    def _names_in(self, groups: Sequence[SubmitGroup], may_be_known: Callable[[SubmitGroup], bool]) -> Parts[_Names]:
        """Return what ``groups`` name: a chain names 100,000 jobs and as many needs."""
        names, pace = _Names(set(), set(), set()), Pace()
        for group in groups:
            known, inside = may_be_known(group), set[str]()
            if group.batch is not None:
                names.batches.add(group.batch.id)
            for job in group.jobs:
                header = job.header
                needs = [need.job_id for need in header.needs if need.job_id not in inside]
                inside.add(job.id)
                names.batches.add(header.batch_id)
                names.batches.update(live.batch_id for job_id in (job.id, *needs) if (live := self._live.get(job_id)))
                names.ids.update(needs)
                if known:
                    names.ids.add(job.id)
                    if header.idempotency_key:
                        names.keys.add(header.idempotency_key)
                if pace.is_full(1 + len(header.needs)):
                    yield
        return names

    async def _met_on_disk(self, names: _Names, dropping: Sequence[Group]) -> list[Group]:
        if not names.ids and not names.keys:
            return []
        await asyncio.shield(self._commits.settled())
        try:
            return await self._commits.read(self._read, names, dropping)
        except QueueUnavailable:
            raise
        except Exception as error:  # whose row that is, and who is refused for it, the look-ups find out
            _log.warning("rows of a submit can't be read, so it waits for each batch dropped: %s", error)
            return list(dropping)

    def _read(self, names: _Names, dropping: Sequence[Group]) -> list[Group]:
        """Return which of these batches have one of the jobs, or were given one of the keys."""
        used = self._journal.keys(list(names.keys)) if names.keys else {}
        ids = [*names.ids, *(key.job_id for key in used.values())]
        seqs = [job.seq for job in self._journal.jobs(ids, with_result=False).values()]
        numbers = {key.batch for key in used.values()}
        return [group for group in dropping if group.no in numbers or any(is_of(group, seq) for seq in seqs)]


def is_of_any(groups: Iterable[Group], seq: int) -> bool:
    """Return True if one of these open batches has, or had, the job with this seq."""
    return any(is_of(group, seq) for group in groups)
