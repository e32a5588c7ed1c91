"""The four priority levels and what each promises.

Levels travel by name; inside the engine a level is its rank (0 runs first), so that a tuple comparison
is all that ordering takes.
"""

from __future__ import annotations

from enum import StrEnum


class AIJobPriority(StrEnum):
    """A job's level. The numbers of the specification (15, 10, 5, 1) are accepted as aliases on input.

    >>> AIJobPriority(15)
    <AIJobPriority.URGENT: 'urgent'>
    """

    URGENT = "urgent"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @classmethod
    def _missing_(cls, value: object) -> AIJobPriority | None:
        return NUMERIC_ALIASES.get(value) if isinstance(value, int) else None

    @property
    def rank(self) -> int:
        """Position in the order of service; 0 runs first."""
        return RANKS[self]


NUMERIC_ALIASES = {
    15: AIJobPriority.URGENT,
    10: AIJobPriority.HIGH,
    5: AIJobPriority.MEDIUM,
    1: AIJobPriority.LOW,
}

LEVELS: tuple[AIJobPriority, ...] = tuple(AIJobPriority)  #: in order of service; a level's index is its rank
RANKS = {level: rank for rank, level in enumerate(LEVELS)}

DEFAULT_SLA_MS = {
    AIJobPriority.URGENT: 3_000,
    AIJobPriority.HIGH: 10_000,
    AIJobPriority.MEDIUM: 30_000,
    AIJobPriority.LOW: 60_000,
}
