"""Which model a worker that can hold one at a time serves next. Pure: the host asks, and carries it out.

Loading takes seconds and empties the cache, so requests for the loaded model go first, but not for ever:

- While others wait, the loaded model takes at most ``most_passes`` more requests, and none once somebody has waited
  ``patience_s``. Then it finishes what runs, and the model that was asked for longest ago is loaded.
- A model that has just been loaded stays for as long as its loading took, unless patience has run out: so at most half
  of the time goes into loading, also when two models are asked for in turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityRule:
    """The two bounds. Both are reached under load only."""

    most_passes: int = 32
    patience_s: float = 10.0


class Waiting(NamedTuple):
    """A request for ``model`` that has waited since ``since`` (seconds of any clock that only goes forward)."""

    model: str
    since: float


class Held(NamedTuple):
    """The loaded model: requests that run on it, that passed others since those wait, and until when it stays."""

    model: str
    running: int
    passes: int
    stays_until: float


class Decision(NamedTuple):
    """``admit`` so many waiting requests for the loaded model; or ``load`` another; or wait until ``look_again``."""

    admit: int = 0
    load: str | None = None
    look_again: float | None = None


def decide(held: Held | None, waiting: Sequence[Waiting], rule: AffinityRule, *, now: float) -> Decision:
    """Return what to do. ``waiting`` is in the order of arrival."""
    if not waiting:
        return Decision()
    if held is None:
        return Decision(load=waiting[0].model)
    own = sum(request.model == held.model for request in waiting)
    others = [request for request in waiting if request.model != held.model]
    if not others:
        return Decision(admit=own)
    oldest = others[0]
    patient = now < oldest.since + rule.patience_s
    passes = max(0, rule.most_passes - held.passes) if patient else 0
    if own and passes:
        return Decision(admit=min(own, passes))
    if held.running:
        return Decision()  # asked again when one ends
    if patient and not own and now < held.stays_until:
        return Decision(look_again=min(held.stays_until, oldest.since + rule.patience_s))
    return Decision(load=oldest.model)
