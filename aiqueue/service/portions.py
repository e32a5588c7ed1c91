"""How much of the journal one read returns: portions of a few MiB, by the sizes that it knows beforehand.

A read holds the lock of the journal's reader, and what it returns is in memory at once. A thousand results may have
16 GiB. So many rows are read in portions, and no column that is not needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from aiqueue.call_size import PART_BYTES, parts_within

_log = logging.getLogger(__name__)
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
    try:
        return read_sizes(keys)
    except Exception as error:
        _log.warning("the sizes of %d rows of the journal could not be read together: %s", len(keys), error)
    sizes: dict[K, int] = {}
    for key in keys:
        try:
            sizes |= read_sizes([key])
        except Exception:  # whoever reads the row is given the error
            sizes[key] = _UNREADABLE_BYTES
    return sizes
