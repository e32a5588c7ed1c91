"""Accepting jobs. What may be known already is looked up first: jobs sent again, ids and keys chosen by callers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from msgspec.structs import replace

from aiqueue.engine import QueueEngine, Submit
from aiqueue.errors import IdempotencyConflict
from aiqueue.journal.base import Journal, StoredJob, StoredKey
from aiqueue.protocol import JobHeader, Refusal, Submission, SubmitGroup, SubmitReply, encode
from aiqueue.service import lookup
from aiqueue.service.commits import CommitPipeline, Committed

_REPEATED = 10_000  # groups remembered

Apply = Callable[[Submit], tuple[Any, Committed]]


class Intake:
    """Turns groups of submissions into Submit commands; each group is accepted whole or not at all."""

    def __init__(self, apply: Apply, engine: QueueEngine, journal: Journal, commits: CommitPipeline) -> None:
        self._apply, self._engine, self._journal, self._commits = apply, engine, journal, commits
        self._looking = asyncio.Lock()
        self._looked_up: frozenset[str] = frozenset()
        self._arrived: set[str] = set()  # of those being looked up: accepted meanwhile by another way
        self._repeated: dict[str, None] = {}  # first jobs of groups that were looked up, the last ones
        self._opened: list[set[str]] = []  # one for each submit that looks something up

    async def submit(self, groups: Sequence[SubmitGroup]) -> SubmitReply:
        """Answer when what was accepted is on disk."""
        replies: list[Refusal | None] = [None] * len(groups)
        known: dict[int, str] = {}
        look_up = [self._may_be_known(group) for group in groups]
        fresh = [at for at, known in enumerate(look_up) if not known]
        if fresh:
            answers = await self._accept([groups[at] for at in fresh])
            replies = _spread(replies, fresh, answers)
        if len(fresh) < len(groups):
            rest = [at for at, looked_up in enumerate(look_up) if looked_up]
            self._remember([groups[at] for at in rest])
            async with self._looking:
                answers, known = await self._accept_known({at: groups[at] for at in rest})
            replies = _spread(replies, rest, answers)
        return SubmitReply(replies, known=known)

    def _may_be_known(self, group: SubmitGroup) -> bool:
        """Return True if the group was sent before. A first call may also come after its repeat, unmarked."""
        sent_again = group.maybe_known or bool(_key_of(group))
        return sent_again or (bool(group.jobs) and group.jobs[0].id in self._repeated)

    def _remember(self, groups: Iterable[SubmitGroup]) -> None:
        for group in groups:
            if group.jobs:
                self._repeated[group.jobs[0].id] = None
        while len(self._repeated) > _REPEATED:
            del self._repeated[next(iter(self._repeated))]

    async def _accept(
        self,
        groups: Sequence[SubmitGroup],
        same: Mapping[str, bool] | None = None,
        digests: Mapping[str, bytes] | None = None,
    ) -> list[Refusal | None]:
        has_batch = any(group.batch is not None for group in groups)
        taken, ended = await self._facts(groups) if has_batch else (frozenset[str](), {})
        if has_batch and same is None and any(map(self._may_be_known, groups)):  # its repeat came meanwhile
            async with self._looking:
                return (await self._accept_known(dict(enumerate(groups))))[0]
        if self._looked_up:
            self._arrived.update(job.id for group in groups for job in group.jobs if job.id in self._looked_up)
        replies, committed = self._apply(Submit(groups, same or {}, digests or {}, ended, taken))
        if has_batch:
            self._note_opened(groups, replies)
        await asyncio.shield(committed)
        return list(replies)

    async def _facts(self, groups: Sequence[SubmitGroup]) -> tuple[Set[str], dict[str, str]]:
        """Return which batch ids are taken, and the ended jobs that are needed."""
        opened: set[str] = set()  # by others while this waits: such a batch may have ended and be in no commit yet
        self._opened.append(opened)
        try:
            taken = await self._taken(groups)
            jobs = [job for group in groups if group.batch is not None for job in group.jobs]
            ended = await lookup.ended_needs(jobs, self._engine, self._journal, self._commits.settled)
            return taken | opened, ended
        finally:
            self._opened = [other for other in self._opened if other is not opened]  # equal ones are others'

    def _note_opened(self, groups: Sequence[SubmitGroup], replies: Sequence[Refusal | None]) -> None:
        for group, refusal in zip(groups, replies, strict=True):
            if group.batch is not None and refusal is None:
                for opened in self._opened:
                    opened.add(group.batch.id)

    async def _taken(self, groups: Sequence[SubmitGroup]) -> Set[str]:
        """Return those batch ids that the journal has. One that ends in its first job's id is as new as that job.

        Not so where the call was made before: its jobs may have ended and been deleted meanwhile.
        """
        batches = [group for group in groups if group.maybe_known or not _is_made_of_ids(group)]
        named = [group.batch.id for group in batches if group.batch is not None]
        if not named:
            return frozenset()
        await asyncio.shield(self._commits.settled())
        return await asyncio.to_thread(self._known_batches, named)

    def _known_batches(self, ids: Iterable[str]) -> Set[str]:
        return {batch_id for batch_id in ids if self._journal.batch(batch_id) is not None}

    async def _accept_known(self, groups: Mapping[int, SubmitGroup]) -> tuple[list[Refusal | None], dict[int, str]]:
        jobs = [job for group in groups.values() for job in group.jobs]
        if len(groups) > 1 and _twice(jobs):  # one after the other: the first may be refused
            each = [await self._accept_known({at: group}) for at, group in groups.items()]
            return [answer for (answer,), _ in each], {at: used for _, known in each for at, used in known.items()}
        stored, keys = await self._look_up([job.id for job in jobs], _keys(jobs))
        digests = {group.jobs[0].id: _digest(group) for group in groups.values() if _key_of(group)}
        answers: dict[int, Refusal | None] = {}
        known: dict[int, str] = {}
        new: list[int] = []
        for at, group in groups.items():
            used = _used_before(group, keys)
            if used is None:
                new.append(at)
            elif used.digest == digests[group.jobs[0].id]:
                known[at] = used.job_id
            else:
                _, _, key = group.jobs[0].header.idempotency_key.partition(":")
                answers[at] = Refusal(IdempotencyConflict.kind, key, used.job_id)
        same = {
            job.id: lookup.is_same(stored[job.id], job, group.metadata)
            for group in groups.values()
            for job in group.jobs
            if job.id in stored
        }
        if new:
            for at, answer in zip(new, await self._accept([groups[at] for at in new], same, digests), strict=True):
                answers[at] = answer
        return [answers.get(at) for at in groups], known

    async def _look_up(self, ids: list[str], keys: list[str]) -> tuple[dict[str, StoredJob], dict[str, StoredKey]]:
        """Read what the journal knows; again, if one of these jobs was accepted while it was read."""
        self._looked_up = frozenset(ids)
        try:
            while True:
                self._arrived.clear()
                await asyncio.shield(self._commits.settled())
                stored = await asyncio.to_thread(self._journal.jobs, ids, with_payload=True)
                found = await asyncio.to_thread(self._journal.keys, keys) if keys else {}
                missing = [job_id for job_id in ids if job_id not in stored]
                if not self._arrived.intersection(missing) and not any(map(self._engine.knows, missing)):
                    return stored, found
        finally:
            self._looked_up = frozenset()


def _is_made_of_ids(group: SubmitGroup) -> bool:
    return group.batch is not None and bool(group.jobs) and group.batch.id.endswith(group.jobs[0].id)


def _key_of(group: SubmitGroup) -> str:
    """Return the idempotency key of all the group's jobs, which the first one carries."""
    return group.jobs[0].header.idempotency_key if group.jobs else ""


def _keys(jobs: Iterable[Submission]) -> list[str]:
    return [job.header.idempotency_key for job in jobs if job.header.idempotency_key]


def _twice(jobs: Sequence[Submission]) -> bool:
    """Tell whether two of the jobs have the same id or the same idempotency key."""
    keys = _keys(jobs)
    return len({job.id for job in jobs}) < len(jobs) or len(set(keys)) < len(keys)


def _used_before(group: SubmitGroup, keys: Mapping[str, StoredKey]) -> StoredKey | None:
    """Return the use of the group's key by another submit."""
    if not group.jobs:
        return None
    job = group.jobs[0]
    found = keys.get(job.header.idempotency_key)
    return None if found is None or found.job_id == job.id else found


def _digest(group: SubmitGroup) -> bytes:
    """Return a hash of all that makes these jobs what they are: not who sent them, when, and under which ids."""
    first, hashed = group.jobs[0], hashlib.blake2b(digest_size=16)
    hashed.update(encode(_options_of(first.header, group.metadata)) + first.payload)
    for job in group.jobs[1:]:  # they share their options
        hashed.update(encode((job.header.type, job.header.provider, job.header.model, job.payload)))
    if group.batch is not None:
        hashed.update(encode(replace(group.batch, id="")))
    if any(job.header.needs for job in group.jobs):
        hashed.update(encode(_needs_of(group.jobs)))
    return hashed.digest()


def _needs_of(jobs: Sequence[Submission]) -> list[tuple[str, list[tuple[int | str, Sequence[str]]]]]:
    """Return what each job waits for: those of the same group by their places, since each submit makes new ids."""
    places = {job.id: at for at, job in enumerate(jobs)}
    return [
        (job.header.on_error, [(places.get(need.job_id, need.job_id), need.names) for need in job.header.needs])
        for job in jobs
    ]


def _options_of(header: JobHeader, shared: bytes) -> tuple[Any, ...]:
    return (
        header.type,
        header.provider,
        header.model,
        header.level,
        header.max_retries,
        header.timeout_ms,
        header.tags,
        header.metadata or shared,
        0 if header.redriven_from else header.delay_ms,  # when a redrive's turn comes is not what it is
        header.run_at,
        header.expires_in_ms,
        header.expires_at,
        header.fail_fast,
    )


def _spread(replies: list[Refusal | None], places: list[int], answers: list[Refusal | None]) -> list[Refusal | None]:
    for at, answer in zip(places, answers, strict=True):
        replies[at] = answer
    return replies
