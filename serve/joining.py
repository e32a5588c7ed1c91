"""How a replica finds its queue, which may start after it.

Serve gives an application up for good after some replicas that could not start, and a cluster's front may be deployed
before its system. So a replica starts without a queue, answers 503, and goes on looking for one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.datastructures import State

from aiqueue.errors import AIQueueError, QueueUnavailable

if TYPE_CHECKING:
    from serve.routes.shared import QueueAdapter

_log = logging.getLogger(__name__)
RETRY_S = 0.5


@asynccontextmanager
async def joined(adapter: QueueAdapter, state: State) -> AsyncIterator[None]:
    """Start ``adapter`` as soon as there is a queue, and stop it at the end. Once started, it is in ``state``."""
    looking = None if await _has_started(adapter, state) else asyncio.create_task(_look(adapter, state))
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await adapter.stop()


async def _look(adapter: QueueAdapter, state: State) -> None:
    while True:
        await asyncio.sleep(RETRY_S)
        try:
            if await _has_started(adapter, state):
                return
        except Exception as error:  # a replica that ended would be started again beside the same queue
            _log.exception("this replica could not join its queue")
            state.absence = QueueUnavailable(f"the HTTP front can't join the queue ({type(error).__name__})")


async def _has_started(adapter: QueueAdapter, state: State) -> bool:
    try:
        await adapter.start()
    except AIQueueError as error:
        state.absence = error if error.http_status == QueueUnavailable.http_status else QueueUnavailable(str(error))
        return False
    state.adapter = adapter
    return True


def adapter_in(state: State) -> QueueAdapter:
    """Return this process's client of the queue. Raises QueueUnavailable as long as it has found none."""
    adapter: QueueAdapter | None = state.adapter
    if adapter is None:
        why: AIQueueError = state.absence
        raise type(why)(*why.args)
    return adapter
