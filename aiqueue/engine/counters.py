"""Totals since the journal was created. They are journaled with every commit, so a restart forgets none."""

from __future__ import annotations

import msgspec

from aiqueue.engine.states import JobState


def _per_level() -> list[int]:
    return [0, 0, 0, 0]


class Counters(msgspec.Struct, kw_only=True, gc=False):
    """Running totals, and the two sequences of the queue."""

    next_seq: int = 1  #: of the next accepted job
    next_event: int = 1  #: of the next event
    accepted: int = 0
    ended: dict[str, int] = msgspec.field(default_factory=dict)  #: by terminal state
    completed: list[int] = msgspec.field(default_factory=_per_level)  #: by level rank
    sla_met: list[int] = msgspec.field(default_factory=_per_level)  #: of the completed ones
    batches: int = 0
    stale_outcomes: int = 0
    next_batch: int = 1  #: number of the next batch in the journal

    def count_end(self, state: JobState) -> None:
        """Count a job that reached a terminal state."""
        name = state._value_
        self.ended[name] = self.ended.get(name, 0) + 1

    def take_seq(self) -> int:
        """Return the next place in the order of acceptance."""
        self.next_seq += 1
        return self.next_seq - 1

    def take_event(self) -> int:
        """Return the next event's number."""
        self.next_event += 1
        return self.next_event - 1


encode_counters = msgspec.msgpack.Encoder().encode
decode_counters = msgspec.msgpack.Decoder(Counters).decode
