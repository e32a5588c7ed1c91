"""Getting ready before the first claim: again and again while trying may help, so that jobs wait and do not fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiqueue.errors import JobError

_log = logging.getLogger(__name__)
_FIRST_WAIT_S = 1.0
_MOST_WAIT_S = 60.0


async def warm_up(
    check: Callable[[], Awaitable[None]],
    *,
    told: Callable[[str], None],
    stopping: Callable[[], bool],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Return when ``check`` succeeds, fails for good, or the worker is ``stopping``.

    Waits 1, 2, 4 … 60 seconds between tries. ``told`` hears what is wrong as soon as it is known, and "" when it no
    longer is. What is wrong for good stays told, and each job then fails with it.
    """
    wait_s = _FIRST_WAIT_S
    while not stopping():
        try:
            await check()
        except JobError as error:
            told(str(error))
            if not error.retryable:
                _log.error("this worker's jobs will fail: %s", error)
                return
            _log.warning("no jobs are taken yet, next try in %g s: %s", wait_s, error)
        else:
            told("")
            return
        await sleep(wait_s)
        wait_s = min(2 * wait_s, _MOST_WAIT_S)
