"""Waiting for jobs without their results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiqueue.client import paging
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import DependencyFailed, JobNotFound
from aiqueue.protocol import END_STATES

_LOOK_S = (0.02, 0.5)  # first and longest wait between looks at what has not ended


async def wait_for(adapter: AsyncAIQueueAdapter, job_ids: Sequence[str], *, stop_on_error: bool) -> None:
    """Wait until jobs have ended. Raises JobNotFound, and with ``stop_on_error`` DependencyFailed."""
    transport, left, wait = adapter.session.transport, list(job_ids), _LOOK_S[0]
    while left:
        states = dict(zip(left, await paging.get_states(transport, left), strict=True))
        for job_id, state in states.items():
            if not state:
                raise JobNotFound(job_id)
            if stop_on_error and state in END_STATES and state != "completed":
                raise await _dependency_failed(adapter, job_id, state)
        if left := [job_id for job_id in left if states[job_id] not in END_STATES]:
            await asyncio.sleep(wait)
            wait = min(_LOOK_S[1], wait * 1.5)


async def _dependency_failed(adapter: AsyncAIQueueAdapter, job_id: str, state: str) -> DependencyFailed:
    info = await adapter.get_job_status(job_id)
    why = f": {info.error.kind}: {info.error.message}" if info and info.error else ""
    return DependencyFailed(f"Dependency failed: job {job_id} ended as {state}{why}")
