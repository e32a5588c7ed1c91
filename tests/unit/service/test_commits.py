"""From effects to answers."""

from __future__ import annotations

import asyncio
import math
import sqlite3

import pytest

from aiqueue.engine.effects import Effects, Rows
from aiqueue.errors import JournalUnavailable
from aiqueue.journal.base import JournalTaken
from aiqueue.protocol import Event
from aiqueue.service.commits import CommitPipeline
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.turns import turns, until


def effects(seq: int) -> Effects:
    event = Event(seq, "job:submitted", 1.0, f"job-{seq}", "o", "queued", "t", "p", "m", 0, 0, 1.0, 0.0, 1)
    return Effects(rows=Rows(jobs=[(seq, f"job-{seq}", b"h", b"p")]), events=[event])


async def test_effects_are_published_in_order_and_before_their_answers() -> None:
    told: list[str] = []
    pipeline = CommitPipeline(MemoryJournal(), lambda events: told.extend(event.job_id for event in events))
    done = [pipeline.append(effects(seq)) for seq in (1, 2, 3)]
    for at, future in enumerate(done):
        future.add_done_callback(lambda _, at=at: told.append(f"answer-{at + 1}"))
    await asyncio.gather(*done)
    await turns()
    assert [name for name in told if name.startswith("job")] == ["job-1", "job-2", "job-3"]
    for seq in (1, 2, 3):
        assert told.index(f"job-{seq}") < told.index(f"answer-{seq}")
    await pipeline.close()


async def test_effects_without_rows_wait_for_those_before_them() -> None:
    journal = MemoryJournal()
    pipeline = CommitPipeline(journal, lambda events: None)
    assert pipeline.append(Effects()).done()
    journal.hold()
    first = pipeline.append(effects(1))
    nothing = pipeline.append(Effects())
    await turns()
    assert not nothing.done()
    journal.release()
    await asyncio.gather(first, nothing)
    assert pipeline.settled().done()
    await pipeline.close()


async def test_an_answer_nobody_waits_for_any_more_stops_nothing() -> None:
    journal = MemoryJournal()
    pipeline = CommitPipeline(journal, lambda events: None)
    journal.hold()
    first, second = pipeline.append(effects(1)), pipeline.append(effects(2))
    first.cancel()
    journal.release()
    await second
    await pipeline.close()
    assert set(journal.jobs(["job-1", "job-2"])) == {"job-1", "job-2"}


async def test_a_journal_that_another_queue_took_refuses_all_that_waits_and_all_that_comes() -> None:
    journal, told = MemoryJournal(), list[Event]()
    pipeline = CommitPipeline(journal, told.extend)
    journal.break_down(JournalTaken("another queue has it"))
    waiting = pipeline.append(effects(1))
    with pytest.raises(JournalUnavailable, match="another queue has it"):
        await waiting
    journal.mend()
    for later in (pipeline.append(effects(2)), pipeline.append(Effects()), pipeline.settled()):
        with pytest.raises(JournalUnavailable, match="another queue has it"):
            await later
    with pytest.raises(JournalUnavailable, match="another queue has it"):
        pipeline.check()
    assert pipeline.waits_s() == math.inf  # the watchdog ends a process that hangs, and this one for good
    assert (told, journal.commits) == ([], 0)
    await pipeline.close()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (sqlite3.SQLITE_CORRUPT, "a page of its database is broken: stop the queue and mend it"),
        (sqlite3.SQLITE_FULL, "make room on its disk"),
        (sqlite3.SQLITE_IOERR_FSYNC, "see to its disk,"),
        (sqlite3.SQLITE_IOERR_WRITE, r"see to its disk \(is a quota used up\?\)"),
        (sqlite3.SQLITE_BUSY, "another program holds its write lock"),
    ],
)
async def test_while_commits_fail_what_is_refused_says_what_can_be_done(code: int, advice: str) -> None:
    journal = MemoryJournal()
    pipeline = CommitPipeline(journal, lambda events: None)
    error = sqlite3.DatabaseError("what SQLite says")
    error.sqlite_errorcode = code
    journal.break_down(error)
    waiting = pipeline.append(effects(1))
    await until(lambda: pipeline._error)
    with pytest.raises(JournalUnavailable, match=rf"can't be written \(what SQLite says\); {advice}"):
        pipeline.check()
    await pipeline.close()
    assert waiting.done()
