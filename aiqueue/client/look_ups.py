"""Looking up many jobs, where the queue may fail on one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from aiqueue.client.paging import get_jobs
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import JobView

_log = logging.getLogger(__name__)
_TRIES = 5  # for one job: a journal that could not be read once can be read again, a row that is broken stays so

Found = list[JobView | Exception | None]


async def look_up(transport: QueueTransport, ids: Sequence[str], *, retry_s: float) -> Found:
    """Return jobs in the order of ``ids``; for one on which the queue fails again and again, its error.

    Where the queue fails on many at once, each half is looked up by itself, so that only those it fails on have the
    error. Raises QueueUnavailable.
    """
    for left in reversed(range(_TRIES)):
        try:
            return list(await get_jobs(transport, ids))
        except QueueUnavailable:
            raise
        except Exception as error:
            _log.warning("the queue failed on a look-up of %d jobs: %s", len(ids), error)
            if len(ids) == 1 and not left:
                return [error]
        await asyncio.sleep(retry_s)
        if len(ids) > 1:
            break
    half = len(ids) // 2
    first = await look_up(transport, ids[:half], retry_s=retry_s)
    return first + await look_up(transport, ids[half:], retry_s=retry_s)
