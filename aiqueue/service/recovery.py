"""The engine as the settings want it and the journal has it."""

from __future__ import annotations

import logging

from aiqueue.config import Settings
from aiqueue.engine import EnginePolicy, GatePolicy, QueueEngine, RetryPolicy, Route
from aiqueue.engine import aside as aside_rows
from aiqueue.engine.counters import ClockMark, decode_counters
from aiqueue.engine.gates import GateKey, decode_gate
from aiqueue.journal.base import Journal, Recovered
from aiqueue.levels import LEVELS
from aiqueue.pools import most_passes
from aiqueue.service.clock import Clock
from aiqueue.service.faults import jobs_to_set_aside

_log = logging.getLogger(__name__)


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

    def load(without: frozenset[str], found: Recovered) -> QueueEngine:
        return QueueEngine.load(policy_of(settings), **found._asdict(), now=now, without=without, clock=mark)

    try:
        with journal.recover() as found:
            return load(aside, found)
    except Exception as error:
        with journal.recover() as found:
            broken = aside_rows.broken(found.rows, len(LEVELS))
        with journal.recover() as found:
            gates = list(filter(_is_gate, found.gates))
            if not broken and len(gates) == len(found.gates):
                raise
            _log.critical(
                "the journal has rows that can't be decoded (%s): the queue starts without %d gates and without these "
                "jobs, which fail: %s",
                *(error, len(found.gates) - len(gates), ", ".join(sorted(broken.values())) or "none"),
            )
            return load(aside | frozenset(broken.values()), found._replace(gates=gates))


def _is_gate(row: tuple[str, bytes]) -> bool:
    try:
        GateKey.from_json(row[0])
        decode_gate(row[1])
    except (ValueError, TypeError):
        return False
    return True
