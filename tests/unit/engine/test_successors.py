"""Which job repeats a dead letter: what the engine checks and notes when it accepts one."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from aiqueue.engine import successors
from aiqueue.engine.commands import Submit
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import Progress, encode_progress
from aiqueue.engine.successors import StateRow
from aiqueue.testing.jobs import group, header, submission
from tests.tools.queue_harness import QueueHarness

_MANY = 1_000  # redrives that one command may hold


class CountedRows(list[StateRow]):
    """Counts the rows that are read."""

    reads = 0

    def __iter__(self) -> Iterator[StateRow]:
        for row in super().__iter__():
            self.reads += 1
            yield row


def test_many_redrives_of_one_command_look_at_each_other_once(queue: QueueHarness) -> None:
    dead = (f"dead {at}" for at in range(_MANY))
    jobs = [submission(f"again {one}", replace(header(), redriven_from=one)) for one in dead]
    progress = encode_progress(Progress(finished_at=1.0))
    repeated = {job.header.redriven_from: (at, "dead_letter", progress) for at, job in enumerate(jobs)}
    command = Submit([group(job) for job in jobs], repeated=repeated)
    turn = Turn(2.0)
    turn.rows.states = rows = CountedRows()
    for job in jobs:
        assert successors.refusal_of(queue.engine.core, turn, [job], command) is None
        successors.note(turn, [job], command)
    assert len(rows) == _MANY
    assert rows.reads <= _MANY
