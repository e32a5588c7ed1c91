"""Reads of many rows at once, of which one may be unreadable: it must not keep the others from their jobs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TypeVar

from aiqueue.call_size import PART_BYTES
from aiqueue.engine.records import JobRecord
from aiqueue.errors import QueueUnavailable
from aiqueue.journal.base import NO_LIMIT, Journal, StoredJob, StoredKey, weight_of
from aiqueue.service.commits import CommitPipeline

_log = logging.getLogger(__name__)
_SAMPLES = 3  # rows of other jobs that are read to see whether anything can be read

K = TypeVar("K")
V = TypeVar("V")


class NotInOne(Exception):
    """The rows have more bytes than one answer has room for, or one of them can't be read."""


class RowReads:
    """Reads that tell the error of a row from one of the disk. ``live``: the jobs that have not ended, by id.

    Each method returns what it found, and by key the error of each row that can't be read. It raises that error where
    nothing else can be read either: then no row is at fault, and the same read may work later.
    """

    def __init__(self, journal: Journal, live: Mapping[str, JobRecord], commits: CommitPipeline) -> None:
        self._journal, self._live, self._in_thread = journal, live, commits.read

    async def payloads(self, seqs: Sequence[int], limit: int) -> tuple[dict[int, bytes], dict[int, Exception]]:
        """Return payloads by seq. When they have more than ``limit`` bytes the rest of them is not read."""
        return await self._read(partial(self._journal.payloads, limit=limit), seqs)

    async def jobs(
        self, ids: Sequence[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> tuple[dict[str, StoredJob], dict[str, Exception]]:
        """Return the jobs that are known, by id. When they have more than ``limit`` bytes the rest is not read."""
        read = partial(self._journal.jobs, with_payload=with_payload, with_result=with_result, limit=limit)
        return await self._read(read, ids)

    async def jobs_in_one(self, ids: Sequence[str], *, with_payload: bool) -> dict[str, StoredJob]:
        """Return the jobs that are known, by id. Raises NotInOne; then it takes their weights to read them."""
        try:
            read = partial(self._journal.jobs, with_payload=with_payload, limit=PART_BYTES)
            found = await self._in_thread(read, ids)
        except QueueUnavailable:
            raise
        except Exception as error:
            raise NotInOne from error
        if sum(map(weight_of, found.values())) > PART_BYTES:
            raise NotInOne
        return found

    async def weights(self, ids: Sequence[str], *, with_payload: bool) -> tuple[dict[str, int], dict[str, Exception]]:
        """Return how many bytes ``jobs`` would read of each job that is known."""
        return await self._read(partial(self._journal.weights, with_payload=with_payload), ids)

    async def states(self, ids: Sequence[str]) -> tuple[dict[str, str], dict[str, Exception]]:
        """Return the states of the jobs that are known, by id."""
        return await self._read(self._journal.states, ids)

    async def keys(self, keys: Sequence[str]) -> dict[str, StoredKey]:
        """Return the idempotency keys that are known and can be read."""
        return (await self._read(self._journal.keys, keys))[0] if keys else {}

    async def attempt_sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """Return how many bytes ``attempts`` would read, by seq: none where that can't be read."""
        return (await self._read(self._journal.attempt_sizes, seqs))[0] if seqs else {}

    async def attempts(self, seqs: Sequence[int]) -> tuple[dict[int, list[bytes]], dict[int, Exception]]:
        """Return the AttemptRecords of jobs by seq."""
        return await self._read(self._journal.attempts, seqs)

    async def sizes(self, seqs: Sequence[int], ids: Sequence[str]) -> tuple[dict[int, int], dict[str, int]]:
        """Return how many bytes jobs have at most, payload and result, by seq; and without payload, by id."""
        if not seqs and not ids:
            return {}, {}
        return await self._in_thread(self._sizes, seqs, ids)

    def _sizes(self, seqs: Sequence[int], ids: Sequence[str]) -> tuple[dict[int, int], dict[str, int]]:
        try:
            sizes = self._journal.sizes(seqs) if seqs else {}
            return sizes, self._journal.weights(ids, with_payload=False) if ids else {}
        except Exception as error:  # one by one then, and the read says whose error it is
            _log.warning("the sizes of %d rows of the journal could not be read: %s", len(seqs) + len(ids), error)
            return dict.fromkeys(seqs, PART_BYTES), dict.fromkeys(ids, PART_BYTES)

    async def _read(
        self, read: Callable[[Sequence[K]], Mapping[K, V]], keys: Sequence[K]
    ) -> tuple[dict[K, V], dict[K, Exception]]:
        found, broken = await self._in_thread(read_each, read, keys)
        if broken and not found:
            asked = set[object](keys)
            others = (job.seq for job in self._live.values() if job.seq not in asked and job.id not in asked)
            if not await self._in_thread(_reads_others, self._journal, list(islice(others, _SAMPLES))):
                raise next(iter(broken.values()))
        return found, broken


def read_each(read: Callable[[Sequence[K]], Mapping[K, V]], keys: Sequence[K]) -> tuple[dict[K, V], dict[K, Exception]]:
    """Return what ``read`` returns for all keys; if it raises, what it returns for each key alone, and its errors."""
    try:
        return dict(read(keys)), {}
    except Exception as error:
        _log.warning("%d rows of the journal could not be read together, each is read alone: %s", len(keys), error)
    found: dict[K, V] = {}
    broken: dict[K, Exception] = {}
    for key in keys:
        try:
            found |= read([key])
        except Exception as error:
            broken[key] = error
    return found, broken


def _reads_others(journal: Journal, samples: Sequence[int]) -> bool:
    """Tell whether any of these rows, or of those that ended first, can be read."""
    try:
        ended = [row.seq for row in journal.ended(after=(0.0, 0), before=math.inf, limit=_SAMPLES)]
    except Exception:
        ended = []
    return any(_is_readable(journal, seq) for seq in [*samples, *ended])


def _is_readable(journal: Journal, seq: int) -> bool:
    try:
        return bool(journal.payloads([seq]))
    except Exception:
        return False


def rows_of(
    journal: Journal, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True
) -> list[StoredJob]:
    """Return the known jobs in the order of ``seqs``. A row that can't be read gives id and state only.

    Runs in a thread. Raises the first error if no row can be read, of other jobs either.
    """

    def read(some: Sequence[int]) -> dict[int, StoredJob]:
        return {job.seq: job for job in journal.by_seq(some, with_payload=with_payload, with_result=with_result)}

    found, broken = read_each(read, seqs)
    for seq in broken:
        with suppress(Exception):  # then not even its id is known, and the list is shown without it
            found |= {job.seq: job for job in journal.outlines([seq])}
    if broken and not found and not _reads_others(journal, ()):
        raise next(iter(broken.values()))
    return [found[seq] for seq in seqs if seq in found]
