"""An engine with a bug that one job meets, as far as the queue can tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aiqueue.engine import QueueEngine


def break_on(engine: QueueEngine, job_id: str, moves: Collection[str] = (), *, submit: bool = False) -> None:
    """Let ``engine`` raise, half way, when it accepts this job or moves it to one of these states."""
    core = engine.core
    record, move = core.record, core.move

    def marked_record(seq: int, new_id: str, *rest: Any, **more: Any) -> Any:
        job = record(seq, new_id, *rest, **more)
        if submit and new_id == job_id:
            raise ZeroDivisionError(f"a bug that {job_id} meets")
        return job

    def marked_move(turn: Any, job: Any, target: Any, **more: Any) -> None:
        if job.id == job_id and target in moves:
            raise ZeroDivisionError(f"a bug that {job_id} meets")
        move(turn, job, target, **more)

    core.record, core.move = marked_record, marked_move  # type: ignore[method-assign]
