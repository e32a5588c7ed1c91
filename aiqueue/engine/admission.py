"""Accepting jobs: a group of them is accepted whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiqueue.engine import batches, lists, prepared, soundness, successors
from aiqueue.engine.cancellation import fail_where_closed
from aiqueue.engine.commands import Submit
from aiqueue.engine.core import Core
from aiqueue.engine.effects import KeyRow
from aiqueue.engine.prepared import Prepared
from aiqueue.engine.publishing import SUBMITTED, Turn
from aiqueue.engine.records import Common
from aiqueue.engine.states import JobState
from aiqueue.errors import DuplicateBatch, DuplicateJob, QueueFull, ValidationError
from aiqueue.levels import LEVELS
from aiqueue.protocol import JobHeader, Refusal, Submission, SubmitGroup, encode

_RETRY_AFTER_S = 5.0  # when the queue is full


def submit(core: Core, turn: Turn, command: Submit) -> list[Refusal | None]:
    """Carry out a Submit."""
    return [_accept(core, turn, group, command) for group in command.groups]


def _accept(core: Core, turn: Turn, group: SubmitGroup, command: Submit) -> Refusal | None:
    looked_at = command.prepared.get(id(group))
    if looked_at is not None and looked_at.fault is not None:
        return looked_at.fault
    if ready := prepared.prepared_of(group, command):
        return _accept_prepared(core, turn, ready, command)
    fresh: dict[str, Submission] = {}
    for job in group.jobs:
        same = command.journaled.get(job.id)
        if same is None and job.id not in core.live and job.id not in fresh:
            fresh[job.id] = job
        elif not same:
            return Refusal(DuplicateJob.kind, str(DuplicateJob(job.id)), job.id)
    headers = {id(job.header): job.header for job in fresh.values()}  # few: jobs submitted together share theirs
    in_batch = group.batch is not None or bool(group.part_of)
    usual, levels = soundness.is_usual, core.levels
    unusual = [header for header in headers.values() if header.level not in levels or not usual(header)]
    if unusual and (refusal := _refuse_unsound(core, fresh.values(), in_batch=in_batch)):
        return refusal
    if in_batch and (refusal := batches.refusal_of(core, group, fresh, command)):
        return refusal
    if not in_batch and (taken := {header.batch_id for header in headers.values()} & core.groups.live.keys()):
        return Refusal(DuplicateBatch.kind, min(taken))  # its counts would be of jobs that are not its own
    repeats = any(header.redriven_from for header in headers.values())
    if repeats and (refusal := successors.refusal_of(core, turn, fresh.values(), command)):
        return refusal
    if full := _no_room(core, len(fresh), (job.header.level for job in fresh.values())):
        return full
    if fresh and group.jobs[0].id in fresh:
        _keep_key(core, turn, group, len(fresh), command)
    if repeats:
        successors.note(turn, fresh.values(), command)
    if group.metadata:
        batches.keep_metadata(core, turn, fresh.values(), group.metadata)
    if in_batch:
        for job in fresh.values():
            job.header.created_at = turn.now
        batches.accept(core, turn, group, fresh.values(), command.ended)
        return None
    drafts = {key: _draft(core, turn, header) for key, header in headers.items()}
    for job in fresh.values():
        _enqueue(core, turn, job, drafts[id(job.header)])
    core.counters.batches += len({header.batch_id for header in headers.values()} - {""})
    return None


def _accept_prepared(core: Core, turn: Turn, ready: Prepared, command: Submit) -> Refusal | None:
    """As ``_accept``, for a large group whose jobs were made ready beforehand."""
    refusal = ready.refusal(command) or successors.refusal_of(core, turn, ready.redrives, command)
    refusal = refusal or _no_room(core, len(ready.jobs), ready.levels)
    if refusal is None:
        if ready.group.metadata:
            batches.share_metadata(core, turn, len(ready.jobs), ready.group.metadata)
        _keep_key(core, turn, ready.group, len(ready.jobs), command)
        successors.note(turn, ready.redrives, command)
        if ready.group.batch is None:
            lists.accept(core, turn, ready)
        else:
            prepared.accept(core, turn, ready, command)
    return refusal


def _refuse_unsound(core: Core, jobs: Iterable[Submission], *, in_batch: bool) -> Refusal | None:
    """Return a refusal if a restart would not load one of these jobs, or would let it wait for others."""
    seen: JobHeader | None = None
    for job in jobs:
        if (header := job.header) is seen:
            continue
        seen = header
        if fault := soundness.fault_in_header(header, len(core.levels)):
            return Refusal(ValidationError.kind, fault, job.id)
        if header.needs and not in_batch:
            return Refusal(ValidationError.kind, soundness.NEEDS_A_BATCH, job.id)
    return None


def _no_room(core: Core, count: int, levels: Iterable[int] | Mapping[int, int]) -> Refusal | None:
    """Return a refusal if ``count`` jobs do not fit in. ``levels``: of each job, or the number of jobs by level."""
    policy, full = core.policy, ""
    if not count:  # sent again: accepted long ago
        return None
    if policy.max_depth is not None and sum(core.waiting) + count > policy.max_depth:
        full = f"the queue is full: {sum(core.waiting)} jobs wait, {policy.max_depth} may; try again later"
    elif any(limit is not None for limit in policy.max_level_depth):
        for level, more in Counter(levels).items():
            limit = policy.max_level_depth[level]
            if limit is not None and core.waiting[level] + more > limit:
                full = f"level {LEVELS[level]} is full: {core.waiting[level]} jobs wait, {limit} may; try again later"
                break
    return Refusal(QueueFull.kind, full, retry_after_s=_RETRY_AFTER_S) if full else None


class _Draft(NamedTuple):
    """What is done once for all jobs of a header."""

    common: Common
    row: bytes
    state: JobState


def _draft(core: Core, turn: Turn, header: JobHeader) -> _Draft:
    header.created_at = turn.now
    common = core.common(header)
    early = common.run_at > turn.now or header.run_at > turn.now + core.ahead_s
    return _Draft(common, encode(header), JobState.SCHEDULED if early else JobState.QUEUED)


def _enqueue(core: Core, turn: Turn, submitted: Submission, draft: _Draft) -> None:
    header = submitted.header
    job = core.record(core.counters.take_seq(), submitted.id, header, draft.common)
    core.counters.accepted += 1
    core.admit(job, draft.state, now=turn.now)
    turn.rows.jobs.append((job.seq, job.id, draft.row, submitted.payload))
    if draft.state is not JobState.QUEUED:
        core.write(turn, job)  # without a row of its own a job counts as queued
    core.publish(turn, job, SUBMITTED)
    if header.fail_fast:
        fail_where_closed(core, turn, job)


def _keep_key(core: Core, turn: Turn, group: SubmitGroup, count: int, command: Submit) -> None:
    """Keep the group's key, if its first job carries one, with the seqs that its ``count`` new jobs get next."""
    first = group.jobs[0]
    if not (key := first.header.idempotency_key):
        return
    seq, batch = core.counters.next_seq, None
    if group.batch is not None:
        batch = core.counters.next_batch
    elif group.part_of:
        batch = core.groups.live[group.part_of].no
    digest = command.digests.get(first.id, b"")
    turn.rows.keys.append(KeyRow(key, first.id, digest, turn.now, seq, seq + count - 1, batch))
