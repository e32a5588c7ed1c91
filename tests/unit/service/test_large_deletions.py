"""Deletions of dead letters that change very many rows: each of the redrives that were deleted before has one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from aiqueue.engine.effects import Effects
from aiqueue.service import dead_letters
from aiqueue.service.commits import Committed
from aiqueue.testing.jobs import failed, group, header, settings, submission
from tests.tools.gates import never_closed
from tests.tools.service_harness import ServiceHarness

_NAMES = "abcdef"


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    """Return a queue with ``a0``, ``b0``, …: each was redriven three times, and the first two redrives were deleted."""
    made = ServiceHarness(never_closed(settings()))
    for at in range(4):
        for name in _NAMES:
            one = replace(header(max_retries=0), redriven_from=f"{name}{at - 1}" if at else "")
            assert await made.service.submit([group(submission(f"{name}{at}", one))]) == [None]
        while made.ready():
            await made.exchange(*map(failed, await made.claim(4)), slots=0)
    await made.service.dead_letters.delete([f"{name}{at}" for name in _NAMES for at in (1, 2)])
    yield made
    await made.service.close()


def rows_at_once(queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows: the number of rows that each commit changes."""
    counts: list[int] = []
    append = queue.service._commits.append

    def count(effects: Effects) -> Committed:
        counts.append(len(effects.rows.states) + len(effects.rows.deletes))
        return append(effects)

    monkeypatch.setattr(queue.service._commits, "append", count)
    return counts


async def test_a_deletion_that_changes_very_many_rows_does_so_in_several_turns(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_MOST_CHANGED", 8, raising=False)
    counts = rows_at_once(queue, monkeypatch)
    last = [f"{name}3" for name in _NAMES]
    assert await queue.service.dead_letters.delete(last) == last
    assert max(counts) <= 8
    left = [await queue.view(f"{name}0") for name in _NAMES]
    assert {(view.status, view.successor) for view in left} == {("dead_letter", "")}
    assert queue.journal.count_dead_letters() == len(_NAMES)
