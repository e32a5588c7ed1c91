"""The engine as the settings want it and the journal has it."""

from __future__ import annotations

from aiqueue.config import Settings
from aiqueue.engine import EnginePolicy, GatePolicy, QueueEngine, RetryPolicy, Route
from aiqueue.engine.counters import ClockMark, decode_counters
from aiqueue.journal.base import Journal
from aiqueue.levels import LEVELS
from aiqueue.pools import most_passes
from aiqueue.service.clock import Clock
from aiqueue.service.faults import jobs_to_set_aside


def policy_of(settings: Settings) -> EnginePolicy:
    """Return the engine's share of ``settings``."""
    routes = {
        name: Route(pool=settings.pool_of(name), credential=entry.key_variable)
        for name, entry in settings.providers.items()
    }
    return EnginePolicy(
        routes=routes,
        sla_ms=settings.sla_by_rank(),
        lease_s=settings.lease.lease_s,
        retry=RetryPolicy(**settings.retry.model_dump(), dead_letters=settings.dead_letter.enabled),
        gates={name: GatePolicy(**entry.gate.model_dump()) for name, entry in settings.providers.items()},
        ageing=settings.ageing,
        most_passes=most_passes(settings),
        max_depth=settings.limits.max_queue_depth,
        max_level_depth=tuple(settings.limits.max_level_depth.get(level) for level in LEVELS),
    )


def last_mark(counters: bytes) -> ClockMark:
    """Return where the clock of the last process stood, from what the journal has of its counters."""
    return decode_counters(counters).clock if counters else ClockMark()


def load_engine(settings: Settings, journal: Journal, clock: Clock) -> QueueEngine:
    """Return the engine as the journal has it."""
    with journal.recover() as found:
        mark = clock.resume(last_mark(found.counters))
    now = clock.now()
    aside = jobs_to_set_aside(journal, now)
    with journal.recover() as found:
        return QueueEngine.load(policy_of(settings), **found._asdict(), now=now, without=aside, clock=mark)
