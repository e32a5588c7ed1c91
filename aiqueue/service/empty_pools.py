"""Pools that should have workers and have none. Where their manager is gone too, only the queue is left to say so."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiqueue.scaling import PoolLoad

WITHOUT_WORKERS = "worker-pool:without-workers"  #: the event that says so
_LIMIT_S = 60.0  # a start of processes, or of a node that is not far; a model may take longer, and is told of


class EmptyPools:
    """``always``: the pools that are never to be empty; any other one may be while nothing waits for it."""

    def __init__(self, always: Collection[str]) -> None:
        self._always = frozenset(always)
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The pools that have been without a worker for a minute."""
        return tuple(sorted(self._told))

    def look(self, loads: Mapping[str, PoolLoad], *, now: float) -> list[str]:
        """Take in the pools' loads; return those that have just become one of ``names``."""
        empty = {pool for pool, load in loads.items() if not load.held and (pool in self._always or any(load.queued))}
        self._since = {pool: self._since.get(pool, now) for pool in empty}
        late = {pool for pool, since in self._since.items() if now - since >= _LIMIT_S}
        new = sorted(late - self._told)
        self._told = late
        return new
