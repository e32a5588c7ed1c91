"""Workers whose system is gone end by themselves: no manager is left to end them, and they would keep their GPUs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from actors import cluster
from actors.options import POOL_MANAGER_NAME
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME

_log = logging.getLogger(__name__)
_LOOK_S = 30.0
_LOOKS = 20  # in a row without either: ten minutes, in which somebody may start the system again


async def wait_until_orphaned(namespace: str, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
    """Return when neither the queue nor the manager of ``namespace`` has been there for ten minutes.

    One that Ray starts again, or can't start yet, has its name all the time.
    """
    alone = 0
    while alone < _LOOKS:
        await sleep(_LOOK_S)
        try:
            names = await asyncio.to_thread(cluster.names_in, namespace)
        except Exception:  # Ray can't be asked, so nothing is known
            alone = 0
        else:
            alone = 0 if {QUEUE_ACTOR_NAME, POOL_MANAGER_NAME} & set(names) else alone + 1
    _log.error("the system in the namespace %r is gone: its worker ends", namespace)
