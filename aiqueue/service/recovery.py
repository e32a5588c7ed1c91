"""The engine as the settings want it and the journal has it."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from aiqueue.config import Settings
from aiqueue.engine import EnginePolicy, GatePolicy, QueueEngine, RetryPolicy, Route
from aiqueue.engine.counters import ClockMark, decode_counters
from aiqueue.engine.soundness import check_counters, is_time, printable
from aiqueue.errors import StartError
from aiqueue.journal.base import Journal, Recovered
from aiqueue.levels import LEVELS
from aiqueue.pools import most_passes
from aiqueue.service.clock import Clock
from aiqueue.service.faults import jobs_to_set_aside
from aiqueue.service.salvage import Salvage

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
    """Return the engine as the journal has it, without the rows that can't be loaded.

    Raises StartError where the journal can't be read, or its counters can't be decoded.
    """
    with journal.recover() as found:
        mark = clock.resume(_sound_mark(found.counters, settings))
    now, policy = clock.now(), policy_of(settings)
    aside = jobs_to_set_aside(journal, now)

    def load(without: frozenset[str], found: Recovered) -> QueueEngine:
        return QueueEngine.load(policy, **found._asdict(), now=now, without=without, clock=mark)

    try:
        with journal.recover() as found:
            return load(aside, found)
    except StartError:
        raise
    except Exception as error:
        lost = Salvage(journal, partial(QueueEngine.load, policy, counters=b"", rows=(), now=now), len(LEVELS))
        if lost.is_empty():
            raise
        _log.critical(
            "the journal %s has rows that can't be loaded (%s); the queue starts without them, and their jobs, and "
            "those of their batches, fail: %s",
            *(settings.journal.path, printable(str(error)), lost),
        )
        with journal.recover() as found:
            engine = load(aside | frozenset(lost.jobs.values()), lost.left_of(found))
        engine.aside = replace(engine.aside, unreadable=frozenset(lost.jobs), batch_of=lost.batch_of)
        return engine


def _sound_mark(counters: bytes, settings: Settings) -> ClockMark:
    """Return ``last_mark``, or a new mark if that is no time. Raises StartError if the counters can't be decoded."""
    try:
        if counters:
            check_counters(decode_counters(counters))
        mark = last_mark(counters)
    except ValueError as error:
        raise StartError(
            f"the journal {settings.journal.path} is damaged: its counters, without which no number of a job or event "
            f"is sure, can't be decoded ({error}); no job was changed. Restore a backup"
        ) from error
    if is_time(mark.now) and is_time(mark.ahead_s) and is_time(mark.offset):
        return mark
    _log.critical(
        "the journal says that its clock stood at %s: that is no time, and the queue's clock begins anew", mark
    )
    return ClockMark()
