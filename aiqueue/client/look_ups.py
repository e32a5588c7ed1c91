"""Looking up many jobs, where the queue may fail on one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from aiqueue.client.paging import get_jobs
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import IncompatibleVersion, QueueUnavailable, RecordUnreadable
from aiqueue.protocol import END_STATES, JobView

_log = logging.getLogger(__name__)
_TRIES = 5  # for one job: a journal that could not be read once can be read again, a row that is broken stays so

Found = list[JobView | Exception | None]


async def look_up(transport: QueueTransport, ids: Sequence[str], *, retry_s: float) -> Found:
    """Return jobs in the order of ``ids``; for one on which the queue fails again and again, its error.

    A job whose row the queue can't read is looked up again, a few times: it may have completed. What is shown of it
    then is that it failed for this reason. Raises QueueUnavailable.
    """
    found = await _look_up(transport, ids, retry_s=retry_s)
    for _ in range(_TRIES - 1):
        unread = [at for at, view in enumerate(found) if is_unread(view)]
        if not unread:
            break
        await asyncio.sleep(retry_s)
        again = await _look_up(transport, [ids[at] for at in unread], retry_s=retry_s)
        for at, view in zip(unread, again, strict=True):
            found[at] = view
    return found


def is_unread(view: JobView | Exception | None) -> bool:
    """Return True for an ended job whose row could not be read. One that ended as unreadable has a time of its end."""
    if not isinstance(view, JobView) or view.failure is None or view.finished_at:
        return False
    return view.failure.kind == RecordUnreadable.kind and view.status in END_STATES


async def _look_up(transport: QueueTransport, ids: Sequence[str], *, retry_s: float) -> Found:
    """As ``look_up``, each row read once.

    Where the queue fails on many at once, each half is looked up by itself, so that only those it fails on have the
    error.
    """
    for left in reversed(range(_TRIES)):
        try:
            return list(await get_jobs(transport, ids))
        except (QueueUnavailable, IncompatibleVersion):
            raise
        except Exception as error:
            _log.warning("the queue failed on a look-up of %d jobs: %s", len(ids), error)
            if len(ids) == 1 and not left:
                return [error]
        await asyncio.sleep(retry_s)
        if len(ids) > 1:
            break
    half = len(ids) // 2
    first = await _look_up(transport, ids[:half], retry_s=retry_s)
    return first + await _look_up(transport, ids[half:], retry_s=retry_s)
