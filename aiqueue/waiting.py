"""Waiting without harm: for a future that others share, and for long work, between whose parts the loop turns."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")
Parts = Generator[None, None, T]  #: work that is done in parts, and what it returns
_PART = 1_000


async def done_within(future: asyncio.Future[Any], timeout_s: float) -> bool:
    """Wait up to ``timeout_s`` seconds for ``future``; return whether it is done. It is not cancelled.

    ``asyncio.wait_for`` raises TimeoutError from Python 3.12 on where the future is resolved and the time is over in
    one turn of the loop, and whatever the future was given is lost.
    """
    await asyncio.wait({future}, timeout=timeout_s)
    return future.done()


async def in_parts(work: Parts[T]) -> T:
    """Return what ``work`` returns; the event loop turns after each of its parts."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return cast(T, done.value)
        await asyncio.sleep(0)


def at_once(work: Parts[T]) -> T:
    """Return what ``work`` returns, all of its parts done without a pause."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return cast(T, done.value)


class Pace:
    """Tells when a part of some work is full: after ``most`` small pieces."""

    def __init__(self, most: int = _PART) -> None:
        self._most = self._left = most

    def is_full(self, count: int = 1) -> bool:
        """Count pieces that were done; return True if the loop is to turn now."""
        self._left -= count
        if self._left > 0:
            return False
        self._left = self._most
        return True
