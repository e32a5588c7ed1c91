"""What a worker can say of its own health: memory, a loop that stands still."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

_LOOK_S = 0.25
_COLLECT_EVERY_S = 1.0
_STATUS = Path("/proc/self/status")


class LoopLag:
    """Measures for how long the event loop does not turn."""

    def __init__(self) -> None:
        self._worst_s = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_LOOK_S)
            self._worst_s = max(self._worst_s, loop.time() - before - _LOOK_S)

    def take_s(self) -> float:
        """Return the longest lag since the last call, in seconds."""
        worst, self._worst_s = self._worst_s, 0.0
        return worst


class GarbageBetweenJobs:
    """Collects garbage when a job has ended, once a second at most: with many slots some job always ends."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def __call__(self) -> None:
        """Collect, if it is time."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_at:
            gc.collect()
            self._next_at = now + _COLLECT_EVERY_S


def private_mb(status: str | None = None) -> float:
    """Return the memory in MB that this process owns; 0.0 on a system that does not say.

    Anonymous pages, also those swapped out. Pages of mapped files (a model that several processes share, Ray's object
    store) belong to the file. ``status``: the text of /proc/PID/status, this process's by default.

    >>> private_mb("VmSwap:\\t 1024 kB\\nRssAnon:\\t 2048 kB\\nRssFile:\\t 999999 kB")
    3.0
    """
    if status is None:
        if not _STATUS.exists():
            return 0.0
        status = _STATUS.read_text()
    fields = (line.split() for line in status.splitlines())
    return sum(int(parts[1]) for parts in fields if parts and parts[0] in ("RssAnon:", "VmSwap:")) / 1024
