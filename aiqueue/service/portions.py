"""How much of the journal one read returns: portions of a few MiB, made by the sizes of rows.

A read holds the lock of the journal's reader, and what it returns is in memory at once. A thousand results may have
16 GiB. So many rows are read in portions, and no column that is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from aiqueue.call_size import PART_BYTES, parts_within
from aiqueue.service.row_reads import read_each

_AT_ONCE = 1_000  # rows whose sizes are read at once
_UNREADABLE_BYTES = 2**20  # in place of a size that can't be read; most often the row can't be read either

K = TypeVar("K")


def portions(
    keys: Sequence[K],
    read_sizes: Callable[[Sequence[K]], Mapping[K, int]],
    *,
    limit: int = PART_BYTES,
    most: int = _AT_ONCE,
) -> Iterator[Sequence[K]]:
    """Yield the keys whose rows are known, in order, in portions of at most ``most`` rows and ``limit`` bytes.

    A row that is larger is a portion of its own. Sizes are read when they are needed: call it in a thread.
    """
    for at in range(0, len(keys), _AT_ONCE):
        some = keys[at : at + _AT_ONCE]
        sizes = _sizes_of(some, read_sizes)
        known = [key for key in some if key in sizes]
        yield from parts_within(known, sizes.__getitem__, limit=limit, most=most)


def first_portion(
    keys: Sequence[K], read_sizes: Callable[[Sequence[K]], Mapping[K, int]], *, limit: int = PART_BYTES
) -> tuple[Sequence[K], int]:
    """Return the first portion, and where in ``keys`` the next one begins. Call it in a thread."""
    found = portions(keys, read_sizes, limit=limit)
    first: Sequence[K] = next(found, ())
    following: Sequence[K] = next(found, ())
    return first, keys.index(following[0]) if following else len(keys)


def _sizes_of(keys: Sequence[K], read_sizes: Callable[[Sequence[K]], Mapping[K, int]]) -> Mapping[K, int]:
    sizes, broken = read_each(read_sizes, keys)
    return sizes | dict.fromkeys(broken, _UNREADABLE_BYTES)  # the error is raised where the row is read
