"""Work that goes on by itself: an error is logged, and does not end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 10.0


async def until_done(work: Callable[[], Awaitable[object]], what: str, *, retry_s: float) -> None:
    """Do ``work``. Whenever it raises, log that and do it again ``retry_s`` seconds later, each time twice as long.

    ``what`` names it in the log. An attempt that lasted longer than the longest wait begins the waits anew.
    """
    loop = asyncio.get_running_loop()
    wait_s = retry_s
    while True:
        began_at = loop.time()
        try:
            await work()
            return
        except Exception:
            if loop.time() - began_at > _LONGEST_WAIT_S:
                wait_s = retry_s
            _log.exception("%s failed; next try in %g s", what, wait_s)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
