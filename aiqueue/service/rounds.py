"""Look up groups of jobs that may be known already. Groups that arrive during a look-up share the next one.

A round reads the journal once for many groups and accepts them in one step. Their callers wait for the commit; the next
round does not. A read may miss what is accepted and not on disk yet. So a group with such an id, key or batch waits for
the disk and is looked up again, as does a group that repeats a name of another group in its round. The answers are the
same as if the groups had come one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

from aiqueue.engine import TERMINAL, QueueEngine, Submit
from aiqueue.engine.prepared import Prepared
from aiqueue.errors import IdempotencyConflict, QueueUnavailable
from aiqueue.journal.base import Journal, StoredKey
from aiqueue.protocol import Refusal, Submission, SubmitGroup
from aiqueue.service import lookup
from aiqueue.service.asked import Answer, Asked, repeated_by
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.digests import key_of
from aiqueue.service.holds import Holds
from aiqueue.service.line import Line
from aiqueue.service.missed import missed
from aiqueue.service.portions import portions
from aiqueue.waiting import in_parts

_log = logging.getLogger(__name__)
_MET = 1_000  # needs of a large group that are looked at in one turn
_ROUND_BYTES = 8 * 2**20  # of payloads looked up at once
_JOB_BYTES = 8_192  # what a job without a payload, or a need, counts for: 1,000 of them take some 10 ms of the loop


class _Found(NamedTuple):
    """What the journal says to a round."""

    keys: dict[str, StoredKey]
    batches: set[str]
    ended: dict[str, str]  #: states of the needed jobs that have ended
    pending: set[str]  #: needed jobs that it has, and that have not ended in it
    repeated: dict[str, tuple[int, str, bytes]]  #: dead letters: seq, state, Progress

    def add(self, other: _Found) -> None:
        """Take in what it says to another round."""
        self.keys.update(other.keys)
        self.batches.update(other.batches)
        self.ended.update(other.ended)
        self.pending.update(other.pending)
        self.repeated.update(other.repeated)


class Rounds:
    """Looks groups up and has them carried out. Lives on the event loop of ``commits``."""

    def __init__(
        self,
        apply: Callable[[Submit], tuple[Any, Committed]],
        engine: QueueEngine,
        journal: Journal,
        commits: CommitPipeline,
        holds: Holds,
        prepared: Mapping[int, Prepared],
    ) -> None:
        self._prepared = prepared
        self._apply, self._journal, self._commits = apply, journal, commits
        self._live, self._holds = engine.core.live, holds
        self._wake = asyncio.Event()
        self._line = Line(self._wake.set)
        self._running: asyncio.Task[None] | None = None

    def ask(self, groups: Iterable[SubmitGroup]) -> list[asyncio.Future[Answer]]:
        """Put groups in line; each is accepted as if those before it had been accepted already."""
        loop = asyncio.get_running_loop()
        asked = [self._asked(group, loop.create_future()) for group in groups]
        for one in asked:
            if one.needs:
                self._holds.take(one.needs)
                one.answered.add_done_callback(partial(self._let_go, one.needs))
        self._line.join(asked)
        self._wake.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return [one.answered for one in asked]

    def _asked(self, group: SubmitGroup, answered: asyncio.Future[Answer]) -> Asked:
        names = {group.batch.id} if group.batch is not None else set[str]()
        if ready := self._prepared.get(id(group)):
            names |= ready.keys
            names.update(job.header.redriven_from for job in ready.redrives)
            weight = ready.bytes + _JOB_BYTES * (len(ready.jobs) + sum(ready.needed.values()))
            return Asked(group, answered, ready.jobs.keys(), names, ready.outside.keys(), weight, is_large=True)
        names.update(job.header.idempotency_key for job in group.jobs)
        names |= repeated_by(group)
        names.discard("")
        weight = sum(len(job.payload) + _JOB_BYTES * (1 + len(job.header.needs)) for job in group.jobs)
        ids = {job.id for job in group.jobs}
        needs = lookup.needs_of(group.jobs) if group.batch is not None else frozenset[str]()
        return Asked(group, answered, ids, names, needs, weight, is_large=False)

    def _let_go(self, needs: Set[str], answered: asyncio.Future[Answer]) -> None:
        self._holds.release(needs)

    async def _run(self) -> None:
        while self._line:
            self._wake.clear()
            if not (asked := await in_parts(self._line.take(_ROUND_BYTES))):
                await self._wake.wait()
                continue
            try:
                await self._round(asked)
            except Exception as error:
                for one in asked:
                    one.fail(error)

    async def _round(self, asked: Sequence[Asked]) -> None:
        with self._commits.watched() as rows:
            asked, found = await self._look_up(asked)
            await self._meet(asked, found)
            under_way = await in_parts(missed(rows, asked, found.repeated))
        unsure = under_way.names
        new: list[Asked] = []
        again: list[Asked] = []
        ahead: set[str] = set()  # names of ``again``
        for one in asked:
            is_behind = one.is_named_in(unsure) or one.is_behind(ahead)
            if is_behind or self._doubts(one, found, unsure, under_way.deletes):
                again.append(one)
                names = ahead
            elif answer := _known(one, found.keys):
                one.answer(answer)
                continue
            else:
                new.append(one)
                names = unsure
            if one is not asked[-1]:  # those of the last one are not looked at, and may be 100,000
                names.update(one.ids, one.names)
        if new:
            self._accept(new, found)
        if again:  # looked up once more when all that is accepted now is on disk
            self._line.put_back(again, self._commits.settled())

    async def _meet(self, asked: Sequence[Asked], found: _Found) -> None:
        """Let large groups know how the jobs outside ended that they need. What ends meanwhile is in a commit."""
        for one in asked:
            if one.is_large and (ready := self._prepared.get(id(one.group))):
                await in_parts(ready.meet(found.ended, _MET))

    async def _look_up(self, asked: Sequence[Asked]) -> tuple[Sequence[Asked], _Found]:
        """Return what the journal says. A group for which it can't be read fails, and is left out."""
        try:
            return asked, await self._commits.read(self._read, asked)
        except QueueUnavailable:
            raise
        except Exception as error:
            if len(asked) == 1:
                raise
            _log.warning("%d groups could not be looked up together, each is looked up alone: %s", len(asked), error)
        readable: list[Asked] = []
        found = _Found({}, set(), {}, set(), {})
        for one in asked:
            try:
                found.add(await self._commits.read(self._read, [one]))
            except Exception as error:
                one.fail(error)
            else:
                readable.append(one)
        return readable, found

    def _read(self, asked: Sequence[Asked]) -> _Found:
        groups = [one.group for one in asked]
        keys = {job.header.idempotency_key for group in groups for job in group.jobs} - {""}
        needs = set[str]().union(*(one.needs for one in asked))
        batches = {group.batch.id for group in groups if group.batch is not None}
        repeated = set[str]().union(*map(repeated_by, groups))
        used = self._journal.keys(list(keys)) if keys else {}
        self._compare_ids(asked)
        for one in asked:
            one.compare(used)
        dead = self._journal.jobs(repeated, with_result=False).values() if repeated else ()
        states = self._journal.states(list(needs)) if needs else {}
        ended = {job_id: state for job_id, state in states.items() if state in TERMINAL}
        return _Found(
            used,
            {batch_id for batch_id in batches if self._journal.batch(batch_id) is not None},
            ended,
            states.keys() - ended.keys(),
            {job.id: (job.seq, job.state, job.progress) for job in dead},
        )

    def _compare_ids(self, asked: Sequence[Asked]) -> None:
        """Note which jobs have ids that are known, and whether they are those jobs. A result says nothing of that."""
        sent: dict[str, list[tuple[Asked, Submission]]] = {}
        for one in asked:
            one.same = {}
            for job in one.group.jobs:
                sent.setdefault(job.id, []).append((one, job))
        sizes = partial(self._journal.weights, with_payload=True, with_result=False)
        for ids in portions(list(sent), sizes):
            for known in self._journal.jobs(ids, with_payload=True, with_result=False).values():
                for one, job in sent[known.id]:
                    one.same[known.id] = lookup.is_same(known, job, one.group.metadata)

    def _doubts(self, one: Asked, found: _Found, unsure: Set[str], deletes: bool) -> bool:
        """Return True if a needed job may have ended or been deleted and the journal did not show it yet.

        A job that is being deleted was not needed when that began, so it may be one of these.
        """
        if not one.needs:
            return False
        # There may be 100,000 needs, so whole sets are compared. The dict, not its view: a view is walked to its end.
        gone = set(one.needs).difference(self._live) - one.sure
        doubtful = gone if deletes else gone & unsure | gone & found.pending
        one.sure |= doubtful  # at the next round
        return bool(doubtful)

    def _accept(self, new: Sequence[Asked], found: _Found) -> None:
        groups = [one.group for one in new]
        same = {job_id: is_same for one in new for job_id, is_same in one.same.items()}
        digests = {one.group.jobs[0].id: one.digest for one in new if one.digest}
        command = Submit(groups, same, digests, found.ended, found.batches, repeated=found.repeated)
        replies, committed = self._apply(command)
        for one, refusal in zip(new, replies, strict=True):
            one.answer(Answer(refusal, committed=committed))


def _known(one: Asked, keys: Mapping[str, StoredKey]) -> Answer | None:
    """Return the answer to a group that was accepted before, or whose key another submit has used."""
    group, is_same = one.group, one.is_same
    used = keys.get(key_of(group))
    if used is None:
        return Answer(None) if one.is_known else None
    if used.job_id == group.jobs[0].id:  # sent again: accepted long ago, whichever of its jobs are deleted since
        return Answer(None) if one.is_known or (is_same and one.is_first) else None
    if is_same:
        return Answer(None, used.job_id)
    return Answer(Refusal(IdempotencyConflict.kind, key_of(group), used.job_id))
