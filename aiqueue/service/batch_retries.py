"""Retrying what failed of a batch: new jobs in the place of those that did not complete, once however often asked.

A retry goes in parts, with reads of the journal in between. Whatever is answered meanwhile stands: a cancelled batch
gets no further part, a paused one stays paused, and a job that was deleted gets no successor.
"""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine import QueueEngine
from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.commands import Command, Retry
from aiqueue.engine.group import Group
from aiqueue.engine.successors import has_successor
from aiqueue.errors import AIQueueError, BatchNotFound, FieldError, ValidationError
from aiqueue.ids import new_job_ids
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import BatchSpec, JobView, Need, Refusal, Submission
from aiqueue.service.batch_pages import BatchPages
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.holds import Holds
from aiqueue.service.lookup import ended_needs, needs_of
from aiqueue.service.next_tries import NextTries, accepted_tries
from aiqueue.service.successors import Successors

_AT_ONCE = 500
_REMEMBERED = 1_000  # calls whose answers may be asked for again

Apply = Callable[[Command], tuple[Any, Committed]]


class Found(NamedTuple):
    """A batch, live or as the journal has it."""

    number: int
    spec: BatchSpec
    stored: StoredBatch
    group: Group | None


class _Part(NamedTuple):
    """Jobs that are replaced in one step."""

    found: Found
    replaced: list[tuple[int, str, bytes]]  #: seq, state, progress
    jobs: list[Submission]
    ended: dict[str, str]  #: states of other jobs that they need
    heirs: dict[str, str]  #: their ids, by those of the jobs that they replace


class _UnderWay:
    """One retry, and what was asked of its batch since it was called."""

    def __init__(self, before: _UnderWay | None) -> None:
        self.before = before  #: a cancelled one that has not ended yet
        self.tokens: list[str] = []  #: of the calls that have its answer
        self.count = 0  #: jobs replaced so far
        self.is_cancelled = False
        self.paused: bool | None = None  #: what the last pause or resume asked for; None: there was none
        self.task: asyncio.Task[None]


class BatchRetries:
    """Retries of one queue's batches: at most one of each batch at a time."""

    def __init__(
        self,
        apply: Apply,
        engine: QueueEngine,
        journal: Journal,
        commits: CommitPipeline,
        pages: BatchPages,
        view_of: Callable[[StoredJob], JobView | None],
        find: Callable[[str], Awaitable[Found]],
        holds: Holds,
    ) -> None:
        self._apply, self._engine, self._journal, self._commits = apply, engine, journal, commits
        self._pages, self._view_of, self._find = pages, view_of, find
        self._holds = holds
        self._successors = Successors(engine, journal, commits)
        self._next_tries = NextTries(journal, commits)
        self._under_way: dict[str, _UnderWay] = {}  # by batch
        self._asked: dict[str, _UnderWay] = {}  # by token of a call
        self._answers: dict[str, int] = {}  # by token, the last ones
        self.at_once = _AT_ONCE  #: jobs of one part of a retry

    async def retry(self, call: BatchCall) -> int:
        """Put new jobs in the place of those that failed; return how many.

        The same call twice does it once, also where a cancel came in between: the repeat gets the first one's answer. A
        call that comes while a retry of its batch goes on has that one's answer.

        Raises BatchNotFound, and ValidationError for a batch that is open or is being stopped.
        """
        if call.token in self._answers:
            return self._answers[call.token]
        run = self._asked.get(call.token) or self._join(call)
        await asyncio.shield(run.task)
        return run.count

    def overrule(self, call: BatchCall) -> None:
        """Let a call about a batch stand against the parts of a retry that are still to come."""
        run = self._under_way.get(call.batch_id)
        if run is not None and call.action == "cancel":
            run.is_cancelled = True
        elif run is not None and call.action in ("pause", "resume"):
            run.paused = call.action == "pause"

    def _join(self, call: BatchCall) -> _UnderWay:
        """Return the retry that a new call gets the answer of."""
        run = self._under_way.get(call.batch_id)
        if run is None or run.is_cancelled:
            run = self._begin(call.batch_id, run)
        if call.token:
            run.tokens.append(call.token)
            self._asked[call.token] = run
        return run

    def _begin(self, batch_id: str, before: _UnderWay | None) -> _UnderWay:
        """Start a retry in a task of its own: a caller that goes away must not leave half of it."""
        run = self._under_way[batch_id] = _UnderWay(before)
        run.task = asyncio.create_task(self._retry(batch_id, run))
        run.task.add_done_callback(lambda _: self._over(batch_id, run))
        return run

    def _over(self, batch_id: str, run: _UnderWay) -> None:
        if self._under_way[batch_id] is run:
            del self._under_way[batch_id]
        is_done = not run.task.cancelled() and run.task.exception() is None  # seen: its caller may have gone away
        for token in run.tokens:
            del self._asked[token]
            if is_done or run.is_cancelled:  # another try would undo the cancel
                self._answers[token] = run.count
        while len(self._answers) > _REMEMBERED:
            del self._answers[next(iter(self._answers))]

    async def _retry(self, batch_id: str, run: _UnderWay) -> None:
        if run.before is not None:
            await asyncio.wait([run.before.task])
            run.before = None
        found = await self._find(batch_id)
        if not run.is_cancelled:
            _check_may_be_retried(found)
        was_stopped = _was_stopped(found.stored)
        await asyncio.shield(self._commits.settled())
        failed = await self._commits.read(self._pages.failed, found.number, bool(found.stored.reason))
        heirs: dict[str, str] = {}
        portions = self._pages.to_retry(failed, self.at_once)
        while seqs := await self._commits.read(next, portions, None):
            part = await self._read(batch_id, seqs, heirs)
            stored = part.found.stored
            if run.is_cancelled or (_was_stopped(stored) and not was_stopped):
                break
            if part.jobs:
                await asyncio.shield(self._carry_out(part, run))
                was_stopped = False
            heirs |= part.heirs
            run.count = len(heirs)

    def _carry_out(self, part: _Part, run: _UnderWay) -> Committed:
        number, spec, stored, group = part.found
        if group is None and run.paused is not None:
            stored.paused = run.paused
        shared = _taken_out(part.jobs, spec.metadata)
        refusal, committed = self._apply(Retry(number, spec, stored, part.replaced, part.jobs, part.ended, shared))
        if isinstance(refusal, Refusal):
            raise error_of(refusal)
        return committed

    async def _read(self, batch_id: str, seqs: Sequence[int], heirs: dict[str, str]) -> _Part:
        """Return what a part consists of in this turn of the loop. A job that can't be read stays as it is."""
        while True:
            with self._commits.watched() as later:
                rows = await self._commits.read(self._pages.again, seqs)
                rows = [row for row in rows if not has_successor(row.progress)]  # redriven, or deleted, meanwhile
                tried_again, tries = await self._next_tries.tried_again(rows)
                rows = [row for row in rows if row.id not in tried_again]
                views = [view for row in rows if (view := self._view_of(row))]
                own = dict(zip((view.id for view in views), new_job_ids(len(views)), strict=True))
                jobs = [_again(view, own[view.id], ChainMap(own, heirs)) for view in views]
                with self._holds.hold(needs_of(jobs)):
                    await self._turn_to_successors(jobs)
                    found, ended = await self._facts(batch_id, jobs)
                changed = {seq for commit in later for seq in (*commit.deletes, *(row[0] for row in commit.states))}
            if changed.isdisjoint(row.seq for row in rows) and not accepted_tries(tries, later):
                replaced = [(row.seq, row.state, row.progress) for row in rows if row.id in own]
                return _Part(found, replaced, jobs, ended, own)
            await asyncio.shield(self._commits.settled())

    async def _turn_to_successors(self, jobs: Sequence[Submission]) -> None:
        """Let jobs need what an earlier retry or a redrive put in the place of those that failed."""
        if last := await self._successors.last(needs_of(jobs)):
            for job in jobs:
                job.header.needs = _mapped(job.header.needs, last)

    async def _facts(self, batch_id: str, jobs: Sequence[Submission]) -> tuple[Found, dict[str, str]]:
        """Return the batch and the ended jobs that these ones need, both as they are in this turn of the loop."""
        while True:
            found = await self._find(batch_id)
            ended = await ended_needs(needs_of(jobs), self._engine, self._journal, self._commits, self._holds)
            if self._engine.core.groups.live.get(batch_id) is found.group:
                return found, ended


def _check_may_be_retried(found: Found) -> None:
    if found.stored.phase in ("open", "stopping"):
        said = f"batch {found.spec.id} is {found.stored.phase}: try again later"
        raise ValidationError([FieldError("batch_id", said)])


def _was_stopped(stored: StoredBatch) -> bool:
    """Return True if somebody cancelled the batch, or its own limits did, since the first part of a retry."""
    return stored.phase in ("stopping", "cancelled") or bool(stored.reason)


def _again(view: JobView, job_id: str, heirs: Mapping[str, str]) -> Submission:
    header = view.header
    header.redriven_from, header.idempotency_key = view.id, ""
    header.run_at = header.expires_at = 0.0
    header.delay_ms = header.expires_in_ms = 0
    header.needs = _mapped(header.needs, heirs)
    return Submission(job_id, header, view.payload)


def _mapped(needs: Sequence[Need], others: Mapping[str, str]) -> tuple[Need, ...]:
    return tuple(Need(others.get(need.job_id, need.job_id), need.names) for need in needs)


def _taken_out(jobs: Sequence[Submission], metadata: bytes) -> bytes:
    """Return ``metadata`` if all jobs have it, and take it out of their headers: it is kept once for all of them."""
    if not all(job.header.metadata == metadata for job in jobs):
        return b""
    for job in jobs:
        job.header.metadata = b""
    return metadata


def error_of(refusal: Refusal) -> AIQueueError:
    """Return the error that a refused steer or retry stands for."""
    if refusal.kind == BatchNotFound.kind:
        return BatchNotFound(refusal.message)
    return ValidationError([FieldError("batch", refusal.message)])
