"""Ids: UUIDv7 (RFC 9562), made by whoever submits, so that a submit can be sent again without a second job.

The last byte of a job's id names the shard of the queue that holds the job; with one shard it is ignored.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

_SEQUENCE_BITS = 12
_LENGTH = 36
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}  #: two bits of it are fixed


class JobIdFactory:
    """Makes job ids that grow within this process, so that the journal's index is appended to.

    RFC 9562, method 1: the 12 bits behind the millisecond are a counter.
    """

    def __init__(
        self, random_bytes: Callable[[int], bytes] = os.urandom, time_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._random_bytes, self._time_ns = random_bytes, time_ns
        self._lock = threading.Lock()
        self._millis = 0
        self._time = ""  # the milliseconds as they stand in an id
        self._count = 0

    def take(self, count: int, *, shard: int = 0) -> list[str]:
        """Return ``count`` new ids for ``shard`` (0 to 255), in growing order."""
        tails = self._random_bytes(8 * count).hex()
        end = f"{shard:02x}"
        with self._lock:
            self._set_time(max(self._millis, self._time_ns() // 1_000_000))
            return [self._next(tails[at : at + 16], end) for at in range(0, 16 * count, 16)]

    def _next(self, tail: str, end: str) -> str:
        self._count += 1
        if self._count >> _SEQUENCE_BITS:
            self._set_time(self._millis + 1)
            self._count = 0
        return f"{self._time}-7{self._count:03x}-{_VARIANT[tail[0]]}{tail[1:4]}-{tail[4:14]}{end}"

    def _set_time(self, millis: int) -> None:
        self._millis = millis
        digits = f"{millis:012x}"
        self._time = f"{digits[:8]}-{digits[8:]}"


_factory = JobIdFactory()


@contextmanager
def made_by(factory: JobIdFactory) -> Iterator[None]:
    """Let ``factory`` make this process's ids inside the block: a run that is repeated then has the same ones."""
    global _factory
    before, _factory = _factory, factory
    try:
        yield
    finally:
        _factory = before


def new_job_ids(count: int, *, shard: int = 0) -> list[str]:
    """Return ``count`` new job ids for ``shard``.

    >>> first, second = new_job_ids(2)
    >>> first < second and len(first) == 36
    True
    """
    return _factory.take(count, shard=shard)


def ids_from(first: str, count: int) -> list[str]:
    """Return ``count`` job ids of one shard, ``first`` among them: whoever knows it knows the others.

    >>> ids_from("01985a30-0000-7000-8000-00000000ff05", 2)
    ['01985a30-0000-7000-8000-00000000ff05', '01985a30-0000-7000-8000-000000010005']
    """
    head, number, shard = first[:24], int(first[24:34], 16), first[34:]
    return [f"{head}{(number + at) % 2**40:010x}{shard}" for at in range(count)]


def is_made_in_order(text: str) -> bool:
    """Return True for an id of ``new_job_ids``: those of one process compare as they were made.

    >>> is_made_in_order(new_job_ids(1)[0]), is_made_in_order("job-1"), is_made_in_order(id_of("row"))
    (True, False, False)
    """
    return len(text) == _LENGTH and text[14] == "7" and text[0] == "0"


def id_of(*words: str) -> str:
    """Return the job id on the first shard that follows from ``words``: always the same one.

    >>> id_of("run", "row", "0")
    '2a7bd688-c079-5030-8e08-1483d22b0a00'
    """
    digest = hashlib.blake2b("\x1f".join(words).encode(), digest_size=16).digest()
    return str(UUID(bytes=digest[:15] + b"\0", version=5))


def next_try_of(job_id: str) -> str:
    """Return the id of the job that ``map`` puts in the place of a failed one: it follows from that one's id.

    >>> next_try_of("2a7bd688-c079-5030-8e08-1483d22b0a00")
    '44fff489-9929-5355-be41-1e243386cb00'
    """
    return id_of(job_id, "next try")


def is_derived(text: str) -> bool:
    """Return True for an id of ``id_of``, as the jobs of ``map`` have.

    >>> is_derived(id_of("row")), is_derived(new_job_ids(1)[0]), is_derived("job-1")
    (True, False, False)
    """
    return len(text) == _LENGTH and text[14] == "5"


def new_id(prefix: str) -> str:
    """Return a new id for something that is not a job: ``worker-…``, ``client-…``, ``batch-…``."""
    return f"{prefix}-{_factory.take(1)[0]}"


def shard_of(job_id: str, shards: int) -> int:
    """Return which of ``shards`` queue actors holds ``job_id``.

    >>> shard_of(new_job_ids(1, shard=5)[0], shards=8)
    5
    """
    return int(job_id[-2:], 16) % shards
