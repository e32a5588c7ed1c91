"""What a system says of its worker pools, kept for assertions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from aiqueue import launch

EVENTS = tuple(f"worker-pool:{what}" for what in ("scaled-up", "scaled-down", "worker-unhealthy", "worker-replaced"))


class PoolEvents:
    """Listens from when it is made."""

    def __init__(self, system: launch.System) -> None:
        self._lock = threading.Condition()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        for name in EVENTS:
            system.adapter.on(name, self._note)

    def _note(self, event: Any) -> None:
        with self._lock:
            self.seen.append((event.name.removeprefix("worker-pool:"), dict(event.data)))
            self._lock.notify_all()

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the data of all events of this name, without the prefix."""
        with self._lock:
            return [data for seen, data in self.seen if seen == name]

    def wait_for(self, name: str, limit_s: float = 180.0, **fields: Any) -> dict[str, Any]:
        """Return the data of the first event of this name with these fields; wait for it."""
        found: list[dict[str, Any]] = []

        def came() -> bool:
            found[:] = [d for seen, d in self.seen if seen == name and d.items() >= fields.items()]
            return bool(found)

        with self._lock:
            assert self._lock.wait_for(came, limit_s), (
                f"no {name} with {fields} within {limit_s:g} s; seen: {self.seen}"
            )
        return found[0]


def eventually(condition: Callable[[], object], what: str, limit_s: float = 180.0) -> None:
    """Wait until ``condition`` holds: for what happens in other processes and tells nobody."""
    give_up_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_at, f"{what}: not within {limit_s:g} s"
        threading.Event().wait(0.1)
