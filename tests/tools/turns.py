"""Waiting for what happens, and not for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LIMIT_S = 120.0  # what is waited for comes at once; this ends a test that would wait for ever
_TURNS = 100  # after them it is a thread that is waited for, which a loop that never sleeps holds up


async def until(condition: Callable[[], object]) -> None:
    """Let everything else run until ``condition`` holds."""
    async with asyncio.timeout(_LIMIT_S):
        turn = 0
        while not condition():  # conditions are anything, also what a thread does
            turn += 1
            await asyncio.sleep(0 if turn < _TURNS else 0.001)


async def turns(count: int = 5) -> None:
    """Let everything that is ready run, and what that makes ready."""
    for _ in range(count):
        await asyncio.sleep(0)
