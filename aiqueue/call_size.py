"""How many bytes one call may carry, and how lists are cut so that none carries more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from aiqueue.protocol import JobHeader, JobView, Outcome, Submission, SubmitGroup, encode

T = TypeVar("T")

MAX_CALL_BYTES = 32 * 2**20  #: of one call, and of one answer
#: Of a list that is cut: what goes beyond it waits for the next call. Small enough to be encoded in a few milliseconds;
#: the rest of ``MAX_CALL_BYTES`` is room for a single job that is larger.
PART_BYTES = 8 * 2**20
_VIEW_BYTES = 600  # about what a job takes beside its texts
_FRAME_BYTES = 4_096  # of a group, beside its jobs
_NAMES_BYTES = 1_600  # type, provider and model at their longest, and the numbers of a header
_SINGLE_BYTES = 16_384  # all that one job's header may take, but for its metadata


def count_within(sizes: Iterable[int], limit: int) -> int:
    """Return how many of the first items have together at most ``limit`` bytes, and at least 1.

    >>> count_within([3, 3, 3], 7), count_within([9, 1], 7), count_within([], 7)
    (2, 1, 1)
    """
    total = count = 0
    for size in sizes:
        total += size
        if total > limit:
            break
        count += 1
    return max(1, count)


def parts_within(items: Sequence[T], size_of: Callable[[T], int], *, limit: int, most: int) -> list[Sequence[T]]:
    """Return ``items`` in parts of at most ``most`` items and ``limit`` bytes; a larger item is a part of its own."""
    parts: list[Sequence[T]] = []
    at = 0
    while at < len(items):
        page = items[at : at + most]
        page = page[: count_within(map(size_of, page), limit)]
        parts.append(page)
        at += len(page)
    return parts


def size_of_job(job: Submission) -> int:
    """Return at most how many bytes a job takes in a call whose jobs share their header, but for that header."""
    return len(job.payload) + len(job.id) + 20


def size_of_view(view: JobView | None) -> int:
    """Return about how many bytes a job takes in an answer."""
    if view is None:
        return 1
    header = view.header
    size = len(view.result) + len(view.payload) + len(header.metadata) + _VIEW_BYTES
    if header.needs:
        size += len(encode(header.needs))
    if header.tags:
        size += sum(4 * len(tag) for tag in header.tags)
    if view.failure:
        size += 4 * len(view.failure.message)
    return size + sum(map(len, view.attempts)) if view.attempts else size


def size_of_outcome(outcome: Outcome) -> int:
    """Return at most how many bytes a worker's report of a job takes."""
    return len(outcome.result) + (4 * len(outcome.failure.message) if outcome.failure else 0) + _VIEW_BYTES


def size_of_group(group: SubmitGroup) -> int:
    """Return at most how many bytes a group takes in a call. Looks at one header for all of them."""
    jobs = group.jobs
    if len(jobs) == 1 and group.batch is None:  # most often, and not to cost anything
        return len(jobs[0].payload) + len(jobs[0].header.metadata) + len(group.metadata) + _SINGLE_BYTES
    payloads = sum(map(size_of_job, jobs))
    header = max(map(size_of_header, (jobs[0].header, jobs[-1].header)), default=0) if jobs else 0
    needs = sum(len(encode(job.header.needs)) for job in jobs if job.header.needs)
    return payloads + len(jobs) * header + needs + len(encode(group.batch)) + len(group.metadata) + _FRAME_BYTES


def size_of_header(header: JobHeader) -> int:
    """Return at most how many bytes a header takes, or one like it of another model, without what it waits for."""
    tags = sum(4 * len(tag) + 5 for tag in header.tags)
    fixed = len(header.owner) + len(header.batch_id) + 4 * len(header.idempotency_key) + len(header.redriven_from)
    return tags + fixed + len(header.metadata) + _NAMES_BYTES
