"""A transport that asks again what is harmless twice, as the one over Ray does while the queue restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiqueue.errors import QueueUnavailable
from aiqueue.testing.in_process import InProcessTransport

_ASKED_AGAIN = frozenset({"batch", "batch_results", "get_jobs", "get_states", "schedules"})


class AskingTransport:
    """Passes all calls on to another transport."""

    def __init__(self, inner: InProcessTransport) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._inner, name)
        if name not in _ASKED_AGAIN:
            return method

        async def ask(*args: Any, **more: Any) -> Any:
            while True:
                try:
                    return await method(*args, **more)
                except QueueUnavailable:
                    await asyncio.sleep(0)

        return ask
