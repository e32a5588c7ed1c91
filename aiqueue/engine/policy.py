"""The engine's share of the settings, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Route:
    """Where a provider's jobs run: the pool that serves it, and the credential its limits belong to."""

    pool: str
    credential: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Waits between attempts, in seconds, and how often a worker may die under a job."""

    base_s: float = 1.0
    cap_s: float = 30.0
    jitter: float = 0.1
    max_crashes: int = 3
    max_refusals: int = 50  #: how often a job waits as its provider asks; the next time is a failed attempt
    dead_letters: bool = True  #: False: a job out of attempts has merely failed


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """Limits of one provider; None: no limit."""

    max_concurrent: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    adaptive: bool = True  #: halve the calls at once when the provider is overloaded
    breaker_failures: int = 5  #: in a row
    breaker_ratio: float = 0.5  #: of the last ``breaker_window`` calls
    breaker_window: int = 20
    breaker_open_s: float = 30.0
    breaker_timeout_s: float = 10.0  #: a timeout counts if the provider had that long


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePolicy:
    """All that the engine is told once."""

    routes: Mapping[str, Route] = field(default_factory=dict)  #: by provider
    sla_ms: tuple[int, ...] = (3_000, 10_000, 30_000, 60_000)  #: by level rank
    lease_s: float = 90.0
    retry: RetryPolicy = RetryPolicy()
    gates: Mapping[str, GatePolicy] = field(default_factory=dict)  #: by provider
    ageing: float = 2.0  #: a job counts one level higher for each time it waited this many SLAs; 0: never
    most_passes: Mapping[str, int] = field(default_factory=dict)  #: by pool whose workers hold one of several models
    most_at_once: int = 500  #: jobs of one kind of pending work that one step deals with at most
    max_depth: int | None = None  #: waiting jobs in all
    max_level_depth: tuple[int | None, ...] = (None, None, None, None)  #: by level rank
