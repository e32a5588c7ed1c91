"""When the engine's clock ticks: as soon as time alone changes something, and once a second.

What happens to very many jobs at once is dealt with some at a time, a tick for each part. The next part waits until
the one before the last is on disk: so the loop is free in between, and no commit grows without limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiqueue.engine import QueueEngine
from aiqueue.service.clock import Clock
from aiqueue.service.commits import Committed
from aiqueue.service.faults import FaultBook

_TICK_S = 1.0  # how often silent workers are looked for; retries that come due are timed exactly
_UNDER_WAY = 2  # ticks that are not on disk yet


class Ticker:
    """Calls ``tick(pause_s)``; ``pause_s`` is the time since the tick before."""

    def __init__(
        self, engine: QueueEngine, clock: Clock, faults: FaultBook, tick: Callable[[float], Committed]
    ) -> None:
        self._engine, self._clock, self._faults, self._do = engine, clock, faults, tick
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = (
            0.0  # by the loop's clock; kept here since a timer of uvloop's that is due at once has no `when`
        )
        self.ticked_at = clock.now()
        self._closed = self._ticking = False
        self._under_way: deque[Committed] = deque(maxlen=_UNDER_WAY)

    def arm(self) -> None:
        """See to it that the next tick comes in time: called whenever the engine has changed."""
        if self._closed or self._ticking or self._faults.failed:
            return
        now = self._clock.now()
        due = self._engine.next_due(now=now)
        delay = _TICK_S if due is None else min(_TICK_S, max(0.0, due - now))
        if not delay and len(self._under_way) == _UNDER_WAY and not self._under_way[0].done():
            delay = _TICK_S  # or sooner: as soon as that commit is on disk
        delay = max(delay, self._faults.pause_s())
        loop = asyncio.get_running_loop()
        rings_at = loop.time() + delay
        if self._timer is not None:
            if self._rings_at <= rings_at:
                return
            self._timer.cancel()
        self._timer, self._rings_at = loop.call_later(delay, self.tick), rings_at

    def close(self) -> None:
        """Tick no more."""
        self._closed = True
        if self._timer:
            self._timer.cancel()

    def tick(self) -> None:
        """Tick now."""
        self._timer, timer = None, self._timer
        if timer:
            timer.cancel()
        now = self._clock.now()
        pause_s, self.ticked_at = now - self.ticked_at, now
        self._ticking = True
        try:
            committed = self._do(pause_s)
            self._under_way.append(committed)
            if not committed.done():
                committed.add_done_callback(lambda _: self.arm())
        finally:
            self._ticking = False
            self.arm()
