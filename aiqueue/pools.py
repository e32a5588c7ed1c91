"""From a pool's settings to what the pool manager works with: scaling rule, health limits, resource demand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from aiqueue.scaling import HealthLimits, ScalingRule
from aiqueue.scaling.presets import PRESETS

if TYPE_CHECKING:
    from aiqueue.config import Settings

_SLOTS = 64
_MAX_MEMORY_MB = 512.0  # the specification's, for workers that only call others


class Slots(NamedTuple):
    """How many jobs one worker runs at once, and how many of these slots are kept free for urgent jobs."""

    all: int
    urgent: int


def slots_of(settings: Settings, pool: str) -> Slots:
    """Return the slots of each worker of ``pool``: for one that holds a model, what the model serves at once.

    Raises ValueError where the pool says otherwise than its model, or keeps all slots for urgent jobs.
    """
    config = settings.pools[pool]
    if settings.serves_local_model(pool):
        (name,) = config.providers
        model = settings.providers[name].llama
        if config.slots not in (None, model.parallel) or config.urgent_slots not in (None, model.urgent_slots):
            raise ValueError(
                f"pool {pool}: its workers run as many jobs as their model serves at once; "
                f"set parallel and urgent_slots of providers.{name}.llama instead"
            )
        return Slots(model.parallel, model.urgent_slots)
    slots = Slots(config.slots or _SLOTS, config.urgent_slots or 0)
    if slots.urgent >= slots.all:
        raise ValueError(f"pool {pool}: urgent_slots ({slots.urgent}) must leave one of its {slots.all} slots")
    return slots


def scaling_rule(settings: Settings, pool: str) -> ScalingRule:
    """Return how ``pool`` is scaled: its own numbers, then its preset's, then the specification's defaults.

    A pool whose workers hold a model starts with the fewest workers, since each takes a GPU or the cores of a node. The
    first size is brought inside the limits where only one of them was given. Raises ValueError for limits that cross.
    """
    config, sla_s = settings.pools[pool], tuple(ms / 1e3 for ms in settings.sla_by_rank())
    base = ScalingRule(slots=slots_of(settings, pool).all, sla_s=sla_s, policy=config.scaling_policy)
    if config.workers is not None:
        fixed = config.workers
        return replace(base, auto_scale=False, min_workers=fixed, max_workers=fixed, default_workers=fixed)
    preset = config.preset or settings.preset
    numbers: dict[str, int | bool] = dict(PRESETS[preset]) if preset else {}
    if not preset and settings.serves_local_model(pool):
        numbers["default_workers"] = 0  # brought up to the minimum below
    numbers |= {name: value for name in _SPECIFIED if (value := getattr(config, name)) is not None}
    rule = replace(
        base,
        **numbers,  # type: ignore[arg-type]  # flags and counts, each under its own name
        up_cooldown_s=config.scale_up_cooldown_ms / 1e3,
        down_cooldown_s=config.scale_down_cooldown_ms / 1e3,
        utilisation=config.utilisation,
    )
    if rule.min_workers > rule.max_workers:
        raise ValueError(
            f"pool {pool}: min_workers is {rule.min_workers} but max_workers {rule.max_workers}; give both"
        )
    return replace(rule, default_workers=max(rule.min_workers, min(rule.default_workers, rule.max_workers)))


def most_passes(settings: Settings) -> dict[str, int]:
    """Return, by pool whose workers hold one of several models, how many jobs may pass an older one for another."""
    found: dict[str, int] = {}
    for pool in filter(settings.serves_local_model, settings.pools):
        (name,) = settings.pools[pool].providers
        entry = settings.providers[name]
        if entry.model_path is None and len(entry.models) > 1:
            found[pool] = entry.llama.swap_after_jobs
    return found


def health_limits(settings: Settings, pool: str) -> HealthLimits:
    """Return what the workers of ``pool`` may be. One that holds a model has no memory limit unless one is given."""
    config = settings.pools[pool]
    limit_mb = config.max_memory_mb
    if limit_mb is None:
        limit_mb = 0.0 if settings.serves_local_model(pool) else _MAX_MEMORY_MB
    return HealthLimits(
        max_memory_mb=limit_mb or None,
        hard_memory_factor=config.hard_memory_factor,
        max_start_s=config.max_start_ms / 1e3,
        max_loop_lag_s=config.max_loop_lag_ms / 1e3,
        overrun_s=config.overrun_ms / 1e3,
    )


_SPECIFIED = (
    "min_workers",
    "max_workers",
    "default_workers",
    "scale_up_threshold",
    "scale_down_threshold",
    "scale_up_step",
    "scale_down_step",
    "auto_scale",
)
