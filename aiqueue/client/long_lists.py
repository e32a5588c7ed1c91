"""Lists of jobs that may be longer than one call carries: they go in parts, each accepted whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from aiqueue.client import paging
from aiqueue.errors import PartlySubmitted
from aiqueue.protocol import SubmitGroup

_FIRST_PART = 256  # of a longer list: workers begin on it before the rest is sent


async def accept_in_parts(group: SubmitGroup, accept: Callable[[SubmitGroup], Awaitable[object]]) -> list[str]:
    """Let the jobs of ``group`` be accepted; return their ids. Raises PartlySubmitted if some parts only were."""
    jobs = group.jobs
    parts = paging.parts_of(jobs)
    first = min(_FIRST_PART, len(parts[0])) if len(parts) > 1 else len(jobs)
    if first:
        await accept(replace(group, jobs=jobs[:first]))
    parts = paging.parts_of(jobs[first:])
    ends = await asyncio.gather(*(accept(replace(group, jobs=part)) for part in parts), return_exceptions=True)
    if refusals := [end for end in ends if isinstance(end, BaseException)]:
        later = [job for part, end in zip(parts, ends, strict=True) if end not in refusals for job in part]
        raise PartlySubmitted([job.id for job in jobs[:first] + later], len(jobs)) from refusals[0]
    return [job.id for job in jobs]
