"""The final status of a batch."""

from __future__ import annotations

from collections.abc import Mapping

from aiqueue.engine.group import FAILED, Group
from aiqueue.engine.states import JobState


def end_phase(group: Group) -> str:
    """Return the final status of a finished batch."""
    ended: Mapping[str, int] = group.stored.ended
    failed = sum(ended.get(state.value, 0) for state in FAILED)
    if group.stored.phase == "stopping":
        return "failed" if group.stored.reason else "cancelled"
    if failed and (group.spec.kind != "batch" or not ended.get(JobState.COMPLETED.value)):
        return "failed"  # a chain with a step missing; a batch of which nothing came
    if ended.get(JobState.CANCELLED.value, 0) == group.stored.total:
        return "cancelled"
    return "completed"
