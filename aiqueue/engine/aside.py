"""Jobs that the queue must go on without: the engine failed again and again with them in hand.

They are left out when the journal is loaded, and end as failed in the first turn. What else the engine knows of them
is not touched: that may be what is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from msgspec.structs import replace

from aiqueue.engine.commands import EndAside
from aiqueue.engine.core import Core
from aiqueue.engine.dependencies import failure_of
from aiqueue.engine.publishing import EVENT_NAMES, Turn
from aiqueue.engine.records import JobRecord, StoredRow, decode_progress
from aiqueue.engine.soundness import fault_in, printable
from aiqueue.engine.states import JobState
from aiqueue.errors import QueueFault, RecordUnreadable
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import Failure, JobHeader, decode_header, header_of

_UNREADABLE = RecordUnreadable(
    "The journal's row of this job, or of its batch, can't be decoded; submit it again"
).to_failure()
_NO_HEADER = JobHeader("", "", "", AIJobPriority.MEDIUM.rank, "")  # says nothing
_FAULT = Failure("worker_fault", str(QueueFault("this job")))


def without(rows: Iterable[StoredRow], jobs: Collection[str], aside: list[StoredRow]) -> Iterator[StoredRow]:
    """Yield ``rows``, but put those of ``jobs``, and of others that can't run without one of them, into ``aside``."""
    gone = set(jobs)
    for row in rows:
        if row[1] in gone:
            aside.append(row)
            continue
        header = decode_header(row[2])
        if header.on_error == "fail" and any(need.job_id in gone for need in header.needs):
            gone.add(row[1])
            aside.append(row)
        else:
            yield row


def end_aside(core: Core, turn: Turn, command: EndAside) -> None:
    """Carry out an EndAside."""
    ended = {row[1] for row in command.rows}
    for row in command.rows:
        seq, job_id, _, _, progress = row
        sound = not fault_in(row, len(core.levels))
        said = decode_header(row[2]) if sound else _what_is_left(row[2])
        said.batch_id = said.batch_id or command.batch_of.get(seq, "")
        job = JobRecord(seq, printable(job_id), *core.common(said), state=JobState.FAILED)
        if core.groups.drops(job):  # it is forgotten with its batch
            turn.rows.deletes.append(seq)
            core.counters.accepted -= 1
            continue
        if progress and sound:
            stored = decode_progress(progress)
            job.attempt, job.retries, job.crashes = stored.attempt, stored.retries, stored.crashes
            job.worker_id, job.started_at = stored.worker_id, stored.started_at
        parent = next((need.job_id for need in said.needs if need.job_id in ended), "")
        failure = failure_of(parent, JobState.FAILED.value) if parent else _FAULT
        if not sound or seq in command.unreadable:
            failure = _UNREADABLE
        core.write(turn, job, failure)
        core.publish(turn, job, EVENT_NAMES[JobState.FAILED], failure=failure)
        if _had_ended(progress):
            continue
        core.counters.count_end(job.state)
        if number := core.groups.ended_outside(job, failure):
            turn.rows.ends.append((number, core.groups.ends_of(job.batch_id), seq))


def _had_ended(progress: bytes) -> bool:
    """Return True if a job had ended, and was counted, before its state was damaged."""
    try:
        return bool(progress and decode_progress(progress).finished_at)
    except ValueError:
        return False


def _what_is_left(body: bytes) -> JobHeader:
    """Return the texts of a header that must not be loaded, and none of its numbers."""
    said = header_of(body)
    if said is None:
        return replace(_NO_HEADER)
    return replace(
        _NO_HEADER, type=said.type, provider=said.provider, model=said.model, owner=said.owner, batch_id=said.batch_id
    )
