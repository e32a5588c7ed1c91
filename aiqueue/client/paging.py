"""Lists of any length, sent and asked about page by page: no call and no answer grows with the list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiqueue.call_size import parts_within, size_of_job
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import JobView, Submission

_T = TypeVar("_T")
JOBS_AT_ONCE = 1_000
STATES_AT_ONCE = 10_000
_PART_JOBS = 1_000
_PART_BYTES = 20 * 2**20  # of payloads; names and tags take up to 10 MiB more


def parts_of(jobs: Sequence[Submission]) -> list[list[Submission]]:
    """Return jobs of a list in the parts that are accepted whole."""
    return [list(part) for part in parts_within(jobs, size_of_job, limit=_PART_BYTES, most=_PART_JOBS)]


async def get_jobs(
    transport: QueueTransport, ids: Sequence[str], *, with_payload: bool = False
) -> list[JobView | None]:
    """Return jobs in the order of ``ids``; None for those unknown."""

    async def ask(page: list[str]) -> Sequence[JobView | None]:
        return await (transport.get_jobs(page, with_payload=True) if with_payload else transport.get_jobs(page))

    return await _in_pages(ask, ids, JOBS_AT_ONCE)


async def get_states(transport: QueueTransport, ids: Sequence[str]) -> list[str]:
    """Return the states of jobs, in the order of ``ids``; empty for those unknown."""
    return await _in_pages(transport.get_states, ids, STATES_AT_ONCE)


async def delete_dead_letters(transport: QueueTransport, ids: Sequence[str]) -> list[str]:
    """Forget dead letters; return the ids of those that were there."""
    gone: list[str] = []
    for at in range(0, len(ids), JOBS_AT_ONCE):
        gone += await transport.delete_dead_letters(list(ids[at : at + JOBS_AT_ONCE]))
    return gone


async def _in_pages(ask: Callable[[list[str]], Awaitable[Sequence[_T]]], ids: Sequence[str], most: int) -> list[_T]:
    """Return an answer for each of ``ids``. The queue may answer for the first ones of a page only: a large answer."""
    found: list[_T] = []
    while len(found) < len(ids):
        page = list(ids[len(found) : len(found) + most])
        answers = await ask(page)
        if not 0 < len(answers) <= len(page):
            raise QueueUnavailable(f"the queue answered for {len(answers)} of {len(page)} jobs")
        found += answers
    return found
