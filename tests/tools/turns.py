"""Waiting for what happens, and not for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LIMIT_S = 60.0  # what is waited for comes at once; this ends a test that would wait for ever


async def until(condition: Callable[[], object]) -> None:
    """Let everything else run until ``condition`` holds."""
    async with asyncio.timeout(_LIMIT_S):
        while not condition():  # noqa: ASYNC110  # conditions are anything, also what a thread does
            await asyncio.sleep(0)


async def turns(count: int = 5) -> None:
    """Let everything that is ready run, and what that makes ready."""
    for _ in range(count):
        await asyncio.sleep(0)
