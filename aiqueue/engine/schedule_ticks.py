"""Which ticks of a schedule are due, and which one comes next: as much work after a minute as after a year."""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice

from aiqueue.engine.schedule_records import Schedule


def due_ticks(schedule: Schedule, now: float, most: int) -> list[float]:
    """Return ticks that are due, in order: at least one, all if there are no more than ``most`` and one.

    Otherwise as many: where all are caught up, the latest; else the first ones, which are only counted, and the last.
    """
    cron = schedule.cron
    assert cron is not None, "asked before"
    first = schedule.state.next_tick
    ticks = [first]
    while (following := cron.next_after(ticks[-1])) is not None and following <= now:
        ticks.append(following)
        if len(ticks) > most + 2:
            break
    else:
        return _started(schedule, ticks, now)[-most - 1 :]
    if schedule.spec.catch_up == "all":
        return _started(schedule, list(islice(cron.back_from(now, first=first), most + 2))[::-1], now)[-most - 1 :]
    last = _started(schedule, list(islice(cron.back_from(now, first=first), 2))[::-1], now)[-1]
    return [*ticks[:most], last]


def _started(schedule: Schedule, ticks: list[float], now: float) -> list[float]:
    """Return the ticks without the last one if its share of the jitter is still to come: that never holds for two."""
    return ticks[:-1] if len(ticks) > 1 and fire_at(schedule, ticks[-1]) > now else ticks


def fire_at(schedule: Schedule, tick: float) -> float:
    """Return when a tick's job starts: later by its own share of the jitter, but before the next tick."""
    jitter_s = schedule.spec.jitter_ms / 1e3
    if not jitter_s or schedule.cron is None:
        return tick
    following = schedule.cron.next_after(tick)
    room = jitter_s if following is None else min(jitter_s, following - tick)
    return tick + room * int.from_bytes(digest(schedule.spec.id, tick)[8:12]) / 2**32


def move_on(schedule: Schedule, after: float) -> None:
    """Let the schedule wait for its first tick after ``after``."""
    state = schedule.state
    assert schedule.cron is not None, "checked when it was added"
    state.last_tick = after
    state.next_tick = schedule.cron.next_after(after) or 0.0
    state.fire_at = fire_at(schedule, state.next_tick) if state.next_tick else 0.0


def tick_job_id(schedule_id: str, tick: float) -> str:
    """Return the id of a tick's job: a UUIDv7 of the tick's time, on the shard that the schedule is on.

    >>> tick_job_id("schedule-01890000-0000-7000-8000-000000000000", 1_700_000_000.0)
    '018bcfe5-6800-73ea-914e-54cc81939000'
    """
    millis, draw = f"{round(tick * 1e3):012x}", digest(schedule_id, tick).hex()
    variant = "89ab"[int(draw[0], 16) & 3]
    return f"{millis[:8]}-{millis[8:]}-7{draw[1:4]}-{variant}{draw[4:7]}-{draw[7:17]}{schedule_id[-2:]}"


def digest(schedule_id: str, tick: float) -> bytes:
    """Return what a tick's id and its share of the jitter are drawn from."""
    return blake2b(f"{schedule_id} {tick!r}".encode(), digest_size=16).digest()
