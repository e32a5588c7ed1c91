"""For which model a worker that holds one at a time is given jobs next.

Loading a model takes seconds and empties its cache. So such a worker is given jobs for the model of its last ones first
within a level, and one that has none of them left takes the oldest. Jobs for a model that no other worker of the pool
is on are passed ``most_passes`` times at most while they are older: then the oldest of them is its next.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Candidate(NamedTuple):
    """The best job of a lane; ordered by who is to be served first."""

    counts_as: int  #: its level, after ageing
    deadline: float
    seq: int
    level: int
    lane: int
    model: str


@dataclass(slots=True)
class Affinity:
    """What one worker was given last."""

    most_passes: int
    model: str = ""  #: of the last job; empty: none yet
    passes: int = 0  #: jobs for ``model`` that went before an older one for a model that nobody serves

    def choose(self, candidates: Sequence[Candidate], served: Container[str]) -> Candidate:
        """Return the next job of ``candidates`` and note it; ``served``: models that other workers are on."""
        best = min(candidates)
        own = min((one for one in candidates if self._is_own(one, best)), default=None)
        if own is None:
            self.model, self.passes = best.model, 0
            return best
        passed = min((one for one in candidates if one < own and one.model not in served), default=None)
        if passed is None:
            self.passes = 0
            return own
        if self.passes < self.most_passes:
            self.passes += 1
            return own
        self.model, self.passes = passed.model, 0
        return passed

    def _is_own(self, one: Candidate, best: Candidate) -> bool:
        return one.model == self.model and one.counts_as == best.counts_as
