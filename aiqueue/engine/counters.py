"""Totals since the journal was created. They are journaled with every commit, so a restart forgets none."""

from __future__ import annotations

import msgspec

from aiqueue.engine.states import JobState

SAME_CLOCK_S = 0.5  #: clocks that differ by no more are taken to agree: dates are that exact


def _per_level() -> list[int]:
    return [0, 0, 0, 0]


class ClockMark(msgspec.Struct, kw_only=True, gc=False):
    """Where the queue's clock stands, so that the next process goes on from there."""

    now: float = 0.0  #: of the queue's clock, at the last commit; 0: the journal is of a release that kept no clock
    ahead_s: float = 0.0  #: of the machine's clock, which people set, before the queue's
    boot: str = ""  #: id of the machine's boot; empty: it has none
    offset: float = 0.0  #: of the queue's clock before the seconds since that boot


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
    clock: ClockMark = msgspec.field(default_factory=ClockMark)
    cascades: list[tuple[str, str]] = []
    """Ended jobs, with their states, of which some that waited for them have not been told yet."""

    def count_end(self, state: JobState) -> None:
        """Count a job that reached a terminal state."""
        name = state._value_
        self.ended[name] = self.ended.get(name, 0) + 1

    def begin_after(self, last_seq: int, last_batch: int) -> None:
        """Go on behind the numbers of the jobs and batches that are there, so that none is given twice."""
        self.next_seq, self.next_batch = max(self.next_seq, last_seq + 1), max(self.next_batch, last_batch + 1)

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
