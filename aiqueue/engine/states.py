"""Job states and the moves between them. No other file decides whether a move is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    BLOCKED = "blocked"  #: waits for other jobs to end, or for the rest of its batch
    QUEUED = "queued"  #: may be claimed now
    SCHEDULED = "scheduled"  #: not before a time: it was submitted so, or a retry waits for its backoff
    PROCESSING = "processing"  #: one worker holds the lease
    CANCELLING = "cancelling"  #: its worker was told to stop
    COMPLETED = "completed"  #: the result is on disk
    FAILED = "failed"  #: ended by an error that another attempt can't mend
    DEAD_LETTER = "dead_letter"  #: out of attempts, or its workers kept dying
    CANCELLED = "cancelled"  #: by its owner; keeps what was produced
    EXPIRED = "expired"  #: was not started in time; nothing ran


_END = frozenset[JobState]()

MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.BLOCKED: frozenset(
        {
            JobState.QUEUED,
            JobState.SCHEDULED,  # all it waited for has ended, but its own time has not come
            JobState.FAILED,  # a job that it needs did not complete
            JobState.CANCELLED,
            JobState.EXPIRED,
        }
    ),
    JobState.QUEUED: frozenset(
        {
            JobState.PROCESSING,
            JobState.CANCELLED,
            JobState.EXPIRED,
            JobState.FAILED,  # its gate closed, and it was to fail rather than wait
        }
    ),
    JobState.SCHEDULED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.EXPIRED}),
    JobState.PROCESSING: frozenset(
        {
            JobState.COMPLETED,
            JobState.FAILED,
            JobState.DEAD_LETTER,
            JobState.SCHEDULED,  # a retry
            JobState.QUEUED,  # the worker was lost or handed it back, or the provider asked to wait
            JobState.CANCELLING,
        }
    ),
    # A worker may finish before it reads that it should stop: then the result stands.
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.COMPLETED}),
    JobState.COMPLETED: _END,
    JobState.FAILED: _END,
    JobState.DEAD_LETTER: _END,
    JobState.CANCELLED: _END,
    JobState.EXPIRED: _END,
}

TERMINAL = frozenset(state for state, targets in MOVES.items() if not targets)


def mermaid() -> str:
    """Return the table of moves as a Mermaid state diagram; ``docs/states.md`` holds what this returns."""
    lines = ["stateDiagram-v2", "    [*] --> queued", "    [*] --> scheduled", "    [*] --> blocked"]
    for state, targets in MOVES.items():
        lines += [f"    {state} --> {target}" for target in JobState if target in targets]
        if not targets:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines)
