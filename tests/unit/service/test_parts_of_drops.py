"""The parts of a dropped batch: which jobs are its own is told by few of them."""

from __future__ import annotations

from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.group import Group
from aiqueue.protocol import BatchSpec
from aiqueue.service.drops import is_of_any


class CountedPart:
    """Seqs of jobs; counts how often any such part is looked at."""

    looks = 0

    def __init__(self, first: int, count: int) -> None:
        self._seqs = range(first, first + count)

    @property
    def start(self) -> int:
        CountedPart.looks += 1
        return self._seqs.start

    def __contains__(self, seq: object) -> bool:
        CountedPart.looks += 1
        return seq in self._seqs


def test_few_of_a_batchs_parts_are_looked_at_to_tell_its_jobs_from_others() -> None:
    batch = Group(1, BatchSpec("open", is_open=True), StoredBatch(), now=0.0)
    batch.parts = [CountedPart(first, 10) for first in range(100, 20_100, 20)]  # type: ignore[misc]
    found = [seq for seq in range(0, 21_000, 7) if is_of_any([batch], seq)]
    looks, CountedPart.looks = CountedPart.looks, 0
    assert found == [seq for seq in range(0, 21_000, 7) if 100 <= seq < 20_100 and (seq - 100) % 20 < 10]
    assert looks < 20 * 21_000 / 7
