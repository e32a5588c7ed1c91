"""Waiting for a future that others share, without losing what it was given at the last moment."""

from __future__ import annotations

import asyncio
from typing import Any


async def done_within(future: asyncio.Future[Any], timeout_s: float) -> bool:
    """Wait up to ``timeout_s`` seconds for ``future``; return whether it is done. It is not cancelled.

    ``asyncio.wait_for`` raises TimeoutError from Python 3.12 on where the future is resolved and the time is over in
    one turn of the loop, and whatever the future was given is lost.
    """
    await asyncio.wait({future}, timeout=timeout_s)
    return future.done()
