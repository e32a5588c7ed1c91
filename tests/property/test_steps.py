"""Batches, chains and graphs, two jobs a step: so everything happens in the middle of something else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis.stateful import invariant, rule

from aiqueue.testing.memory_journal import MemoryJournal
from tests.property.test_batches import POLICY, BatchMachine
from tests.tools.queue_harness import QueueHarness

FEW = replace(POLICY, most_at_once=2)


class SteppingMachine(BatchMachine):
    """A restart may come between any two steps: then nothing but the journal says what was left to do."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = QueueHarness(FEW, MemoryJournal())

    @rule(batch=BatchMachine.batches)
    def drop(self, batch: str) -> None:
        super().drop(batch)
        self.queue.go_on()

    @rule()
    def restart(self) -> None:
        if self.queue.engine.core.pending:
            self.queue.restart()
        else:
            super().restart()

    @invariant()
    def little_is_under_way(self) -> None:
        assert len(self.queue.engine.core.counters.cascades) <= 40


TestSteps = SteppingMachine.TestCase
TestSteps.settings = settings(max_examples=150, stateful_step_count=40)
