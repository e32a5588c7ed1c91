"""What runs in the place of a job that ended badly: one job at most, asked for by a redrive or by a retry of its batch.

An ended job is not in memory. So a command brings its row as the journal has it, and that row says which job was put
in its place. A retry of a batch also turns a dead letter into a failed job, which can't be redriven.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aiqueue.engine.commands import Submit
from aiqueue.engine.core import Core
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import decode_progress, encode_progress
from aiqueue.engine.soundness import end_in
from aiqueue.engine.states import JobState
from aiqueue.errors import DeadLetterNotFound, IdempotencyConflict, ValidationError
from aiqueue.protocol import Refusal, Submission

#: In place of a successor's id: the job was deleted, and is kept as a live job needs its error; or its successor was.
DELETED = "-"

StateRow = tuple[int, str, bytes, float]


def has_successor(progress: bytes) -> bool:
    """Return True for an ended job that no retry of its batch may repeat: also if its row can't be decoded."""
    try:
        return bool(progress and decode_progress(progress).successor)
    except ValueError:
        return True


def successor_of(progress: bytes) -> str:
    """Return the job that runs in the place of an ended one; empty if there is none, or the row can't be decoded."""
    successor = (_successor_in(progress) if progress else "") or ""
    return "" if successor == DELETED else successor


def is_clear(progress: bytes) -> bool:
    """Return False if the Progress of an ended job can't be decoded, and may name a successor."""
    return _successor_in(progress) is not None


def with_successor(progress: bytes, job_id: str) -> bytes:
    """Return the Progress of an ended job, changed to say what runs in its place; as it is if it can't be decoded."""
    try:
        decoded = decode_progress(progress)
    except ValueError:
        return progress
    decoded.successor = job_id
    return encode_progress(decoded)


def refusal_of(core: Core, turn: Turn, jobs: Iterable[Submission], command: Submit) -> Refusal | None:
    """Return why jobs can't repeat the dead letters that they name; None if they can."""
    repeats: dict[str, str] = {}  # by dead letter: the job that repeats it
    for job in jobs:
        if not (repeated := job.header.redriven_from):
            continue
        if (other := repeats.setdefault(repeated, job.id)) != job.id:
            return Refusal(ValidationError.kind, f"repeats dead letter {repeated}, as job {other} does", job.id)
        _, state, progress = command.repeated.get(repeated, (0, "", b""))
        successor = _successor_in(turn.repeated.get(repeated, progress))
        if state != JobState.DEAD_LETTER or successor is None:
            return Refusal(DeadLetterNotFound.kind, repeated)
        if successor in core.live:  # a redrive has given it one, under another key
            return Refusal(IdempotencyConflict.kind, job.header.idempotency_key, successor)
    return None


def note(turn: Turn, jobs: Iterable[Submission], command: Submit) -> None:
    """Write into the row of each dead letter which of the accepted jobs repeats it."""
    for job in jobs:
        if repeated := job.header.redriven_from:
            seq, state, progress = command.repeated[repeated]
            turn.repeated[repeated] = new = with_successor(progress, job.id)
            turn.rows.states.append((seq, state, new, end_in(progress, turn.now)))


def retried(turn: Turn, replaced: Sequence[tuple[int, str, bytes]], jobs: Sequence[Submission]) -> list[StateRow]:
    """Return new rows of the jobs that a retry replaces, which name ``jobs``. Dead letters become FAILED jobs."""
    return [
        (
            seq,
            JobState.FAILED.value if state == JobState.DEAD_LETTER else state,
            with_successor(progress, job.id),
            end_in(progress, turn.now),
        )
        for (seq, state, progress), job in zip(replaced, jobs, strict=True)
    ]


def _successor_in(progress: bytes) -> str | None:
    """Return what runs in a dead letter's place, empty for nothing; None if its row can't be decoded."""
    try:
        return decode_progress(progress).successor
    except ValueError:
        return None
