"""What the pool manager asks a few times a second: how much work there is for each pool, and who holds how much."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiqueue.engine.core import Core
from aiqueue.levels import LEVELS
from aiqueue.scaling import PoolLoad
from aiqueue.service.statistics import RecentTimes


def collect_loads(
    core: Core, recent: RecentTimes, pools: Iterable[str], pool_of: Callable[[str], str], *, now: float
) -> dict[str, PoolLoad]:
    """Return the load of each pool at ``now``. O(lanes + workers)."""
    loads = {pool: PoolLoad([0] * len(LEVELS), [0.0] * len(LEVELS), held={}) for pool in pools}
    for lane in core.lanes.filled():
        load = loads.get(lane.key.pool)
        if load is None:
            continue
        room = core.gates.of(lane.key, now=now).room(now)  # more workers open no gate
        for level, queued in enumerate(lane.queued):
            ready = min(queued, room)
            room -= ready
            load.queued[level] += ready
            if ready and (since := lane.oldest_of(level)) is not None:
                load.waited_s[level] = max(load.waited_s[level], now - since)
    for worker in core.leases:
        if load := loads.get(worker.pool):
            load.running += len(worker.held)
            load.held[worker.id] = len(worker.held)
    for provider, served in recent.served.items():
        if load := loads.get(pool_of(provider)):
            load.completed += served.completed
            load.busy_s += served.busy_s
    return loads
