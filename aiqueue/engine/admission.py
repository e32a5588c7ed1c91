"""Accepting jobs: a group of them is accepted whole or not at all."""

from __future__ import annotations

from aiqueue.engine.commands import Submit
from aiqueue.engine.core import SUBMITTED, Core, Turn
from aiqueue.errors import DuplicateJob
from aiqueue.protocol import Refusal, Submission, SubmitGroup, encode


def submit(core: Core, turn: Turn, command: Submit) -> list[Refusal | None]:
    """Carry out a Submit."""
    return [_accept(core, turn, group, command) for group in command.groups]


def _accept(core: Core, turn: Turn, group: SubmitGroup, command: Submit) -> Refusal | None:
    fresh: dict[str, Submission] = {}
    for job in group.jobs:
        same = command.journaled.get(job.id)
        if same is None and job.id not in core.live and job.id not in fresh:
            fresh[job.id] = job
        elif not same:
            return Refusal(DuplicateJob.kind, str(DuplicateJob(job.id)), job.id)
    batch_ids = set()
    for job in fresh.values():
        _enqueue(core, turn, job)
        batch_ids.add(job.header.batch_id)
    core.counters.batches += len(batch_ids - {""})
    return None


def _enqueue(core: Core, turn: Turn, submitted: Submission) -> None:
    header = submitted.header
    header.created_at = turn.now
    job = core.record(core.counters.take_seq(), submitted.id, header)
    core.counters.accepted += 1
    core.lanes.push(job)
    turn.rows.jobs.append((job.seq, job.id, encode(header), submitted.payload))
    core.publish(turn, job, SUBMITTED)
