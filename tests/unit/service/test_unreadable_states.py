"""Many jobs are asked about or cancelled together, and the state of one can't be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiqueue.testing.jobs import completed, group
from tests.tools.broken_journal import BrokenJournal
from tests.tools.service_harness import ServiceHarness
from tests.unit.service.test_dropped_batches import go_on, half_dropped, known

ENDED = ["a", "bad", "c"]


@pytest.fixture
async def journal() -> BrokenJournal:
    return BrokenJournal()


@pytest.fixture
async def queue(journal: BrokenJournal) -> AsyncIterator[ServiceHarness]:
    """Return a queue with three jobs that have completed and one that waits."""
    made = ServiceHarness(journal=journal)
    await made.submit(*ENDED, "live")
    await made.claim(3)
    await made.exchange(*map(completed, ENDED), slots=0)
    journal.broken_states = {"bad"}
    yield made
    await made.service.close()


async def test_the_states_of_all_others_are_told_and_that_one_counts_as_failed(queue: ServiceHarness) -> None:
    states = await queue.service.batches.states([*ENDED, "live", "nowhere"])
    assert states == ["completed", "failed", "completed", "queued", ""]


async def test_all_others_are_cancelled_and_the_answer_says_so(queue: ServiceHarness) -> None:
    replies = await queue.service.cancel(["a", "bad", "live"])
    assert [(reply.cancelled, reply.status) for reply in replies] == [
        (False, "completed"),
        (False, "failed"),
        (True, "cancelled"),
    ]


async def test_a_disk_that_reads_nothing_is_an_error_and_no_state(
    queue: ServiceHarness, journal: BrokenJournal
) -> None:
    journal.dead = True
    with pytest.raises(OSError, match="Input/output error"):
        await queue.service.batches.states(ENDED)


async def test_a_submit_whose_row_can_not_be_read_fails_alone_while_a_batch_is_dropped() -> None:
    journal = BrokenJournal()
    queue = ServiceHarness(journal=journal)
    await queue.submit("bad")
    await half_dropped(queue)
    journal.broken = {"bad"}
    groups = [known(group("bad")), group("new"), known(group("other"))]
    call = asyncio.create_task(queue.service.submit(groups))
    await go_on(queue)
    bad, *others = await call
    assert bad is not None
    assert bad.kind == "record_unreadable"
    assert others == [None, None]
    assert queue.service._engine.core.live.keys() == {"bad", "new", "other"}
    await queue.service.close()
