"""Retrying what failed of a batch: new jobs in the place of those that did not complete, once however often asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine import QueueEngine
from aiqueue.engine.commands import Command, Retry
from aiqueue.engine.groups import Group, StoredBatch
from aiqueue.errors import AIQueueError, BatchNotFound, FieldError, ValidationError
from aiqueue.ids import new_job_ids
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import BatchSpec, JobView, Need, Refusal, Submission
from aiqueue.service.batch_pages import BatchPages
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.lookup import ended_needs

_AT_ONCE = 500
_REMEMBERED = 1_000  # calls whose answers may be asked for again

Apply = Callable[[Command], tuple[Any, Committed]]


class Found(NamedTuple):
    """A batch, live or as the journal has it."""

    number: int
    spec: BatchSpec
    stored: StoredBatch
    group: Group | None


class BatchRetries:
    """Retries of one queue's batches: at most one of each batch at a time."""

    def __init__(
        self,
        apply: Apply,
        engine: QueueEngine,
        journal: Journal,
        commits: CommitPipeline,
        pages: BatchPages,
        view_of: Callable[[StoredJob], JobView],
        find: Callable[[str], Awaitable[Found]],
    ) -> None:
        self._apply, self._engine, self._journal, self._commits = apply, engine, journal, commits
        self._pages, self._view_of, self._find = pages, view_of, find
        self._under_way: dict[str, asyncio.Task[int]] = {}  # by batch
        self._answers: dict[str, int] = {}  # by call, the last ones
        self.at_once = _AT_ONCE  #: jobs of one part of a retry

    async def retry(self, call: BatchCall) -> int:
        """Put new jobs in the place of those that failed; return how many.

        The same call twice does it once. A call that comes while a retry of its batch goes on has that one's answer.
        Raises BatchNotFound, and ValidationError for a batch that is open or is being stopped.
        """
        if call.token and call.token in self._answers:
            return self._answers[call.token]
        task = self._under_way.get(call.batch_id)
        if task is None:
            # A task of its own: a caller that goes away must not leave half a retry.
            task = self._under_way[call.batch_id] = asyncio.create_task(self._retry(call.batch_id))
            task.add_done_callback(lambda done: self._over(call.batch_id, done))
        count = await asyncio.shield(task)
        if call.token:
            self._answers[call.token] = count
            if len(self._answers) > _REMEMBERED:
                del self._answers[next(iter(self._answers))]
        return count

    def _over(self, batch_id: str, task: asyncio.Task[int]) -> None:
        del self._under_way[batch_id]
        if not task.cancelled():
            task.exception()  # seen: its caller may have gone away

    async def _retry(self, batch_id: str) -> int:
        found = await self._find(batch_id)
        _check_may_be_retried(found)
        await asyncio.shield(self._commits.settled())
        failed = await asyncio.to_thread(self._pages.failed, found.number, bool(found.stored.reason))
        heirs: dict[str, str] = {}
        for at in range(0, len(failed), self.at_once):
            rows = await asyncio.to_thread(self._journal.by_seq, failed[at : at + self.at_once], with_payload=True)
            views = [self._view_of(row) for row in rows]
            heirs |= dict(zip((view.id for view in views), new_job_ids(len(views)), strict=True))
            jobs = [_again(view, heirs) for view in views]
            found, ended = await self._facts(batch_id, jobs)
            if at and _was_stopped(found.stored):
                return at
            replaced = [(row.seq, row.state, row.progress) for row in rows]
            shared = _taken_out(jobs, found.spec.metadata)
            command = Retry(found.number, found.spec, found.stored, replaced, jobs, ended, shared)
            refusal, committed = self._apply(command)
            if isinstance(refusal, Refusal):
                raise error_of(refusal)
            await asyncio.shield(committed)
        return len(failed)

    async def _facts(self, batch_id: str, jobs: Sequence[Submission]) -> tuple[Found, dict[str, str]]:
        """Return the batch and the ended jobs that these ones need, both as they are in this turn of the loop."""
        while True:
            found = await self._find(batch_id)
            ended = await ended_needs(jobs, self._engine, self._journal, self._commits.settled)
            if self._engine.core.groups.live.get(batch_id) is found.group:
                return found, ended


def _check_may_be_retried(found: Found) -> None:
    if found.stored.phase in ("open", "stopping"):
        said = f"batch {found.spec.id} is {found.stored.phase}: try again later"
        raise ValidationError([FieldError("batch_id", said)])


def _was_stopped(stored: StoredBatch) -> bool:
    """Return True if somebody cancelled the batch, or its own limits did, since the first part of a retry."""
    return stored.phase in ("stopping", "cancelled") or bool(stored.reason)


def _again(view: JobView, heirs: dict[str, str]) -> Submission:
    header = view.header
    header.redriven_from, header.idempotency_key = view.id, ""
    header.run_at = header.expires_at = 0.0
    header.delay_ms = header.expires_in_ms = 0
    header.needs = tuple(Need(heirs.get(need.job_id, need.job_id), need.names) for need in header.needs)
    return Submission(heirs[view.id], header, view.payload)


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
