"""Forgetting jobs that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue import protocol
from aiqueue.config import RetentionConfig
from aiqueue.engine.effects import Rows
from aiqueue.engine.records import Progress, encode_progress
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.journal.base import EndedRow
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.retention import Retention
from aiqueue.testing.jobs import header, settings
from aiqueue.testing.manual_clock import ManualClock
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns

DAY_S = 86_400.0


class Kept:
    """A journal with jobs of chosen states and ages, and the retention over it."""

    def __init__(self, **config: Any) -> None:
        self.journal, self.clock = MemoryJournal(), ManualClock()
        self.commits = CommitPipeline(self.journal, lambda events: None)
        self.live = 0
        self.retention = Retention(RetentionConfig(**config), self.journal, self.commits, self.clock, lambda: self.live)
        self.deleted: list[list[int]] = []
        self.journal.on_commit = lambda rows: self.deleted.append(rows.deletes) if rows.deletes else None

    def add(self, count: int, state: str = "completed", *, ended_ago_s: float = 0.0, took_s: float = 1.0) -> None:
        """Add jobs in one state, after those that are there."""
        first = len(self.journal._disk.jobs) + sum(map(len, self.deleted)) + 1
        seqs = range(first, first + count)
        ended_at = self.clock.now() - ended_ago_s
        progress = encode_progress(Progress(finished_at=ended_at))
        accepted = protocol.encode(replace(header(), created_at=ended_at - took_s))
        self.live += 0 if state in TERMINAL else count
        self.journal.commit(
            Rows(
                jobs=[(seq, f"job-{seq}", accepted, b"p") for seq in seqs],
                states=[(seq, state, progress) for seq in seqs] if state else [],
                attempts=[(seq, 1, b"a") for seq in seqs],
            )
        )

    @property
    def seqs(self) -> list[int]:
        """What is left."""
        return sorted(self.journal._disk.jobs)

    async def tick(self) -> None:
        """Let a step run to its end, if it is time for one."""
        self.retention.tick()
        if self.retention._step_task is not None:
            await self.retention._step_task


@pytest.fixture
async def kept() -> AsyncIterator[Callable[..., Kept]]:
    """Return a maker of journals with retention."""
    made: list[Kept] = []

    def make(**config: Any) -> Kept:
        made.append(Kept(**config))
        return made[-1]

    yield make
    for each in made:
        each.journal.release()
        await each.commits.close()


async def test_jobs_are_forgotten_a_day_after_their_end_with_all_that_belongs_to_them(
    kept: Callable[..., Kept],
) -> None:
    old = kept()
    old.add(2, ended_ago_s=DAY_S + 1)
    old.add(1, ended_ago_s=DAY_S - 1)
    await old.tick()
    assert old.seqs == [3]
    assert old.journal.jobs(["job-1", "job-2"]) == {}
    assert set(old.journal.attempts([1, 2, 3])) == {3}


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_every_end_counts(kept: Callable[..., Kept], state: str) -> None:
    old = kept(max_age_s=10.0)
    old.add(1, state, ended_ago_s=11.0)
    await old.tick()
    assert old.seqs == []


@pytest.mark.parametrize("state", ["", *sorted(state.value for state in JobState if state not in TERMINAL)])
async def test_a_live_job_is_never_deleted_however_old_and_however_many(kept: Callable[..., Kept], state: str) -> None:
    old = kept(max_age_s=10.0, max_jobs=0)
    old.add(3, state, ended_ago_s=10 * DAY_S)
    old.add(1, ended_ago_s=10 * DAY_S)
    await old.tick()
    assert old.seqs == [1, 2, 3]


async def test_beyond_the_count_the_oldest_go_first(kept: Callable[..., Kept]) -> None:
    many = kept(max_jobs=10)
    many.add(25)
    await many.tick()
    assert many.seqs == list(range(16, 26))


async def test_a_pass_goes_in_small_steps_and_does_not_wait_for_the_next_tick_while_all_is_over(
    kept: Callable[..., Kept],
) -> None:
    many = kept(max_jobs=0)
    many.add(1_700)
    await many.tick()
    assert many.seqs == []
    assert [len(step) for step in many.deleted] == [500, 500, 500, 200]


async def test_where_nothing_is_over_a_step_is_one_read_per_tick(kept: Callable[..., Kept]) -> None:
    many = kept()
    many.add(1_000, took_s=2 * DAY_S)  # old, but ended just now
    many.add(1, ended_ago_s=2 * DAY_S)
    await many.tick()
    await many.tick()
    assert len(many.seqs) == 1_001
    await many.tick()
    assert len(many.seqs) == 1_000


@pytest.mark.parametrize("old", [0, 1, 2, 3, 255, 256, 257, 700])
async def test_what_was_accepted_too_late_to_be_too_old_is_never_read(kept: Callable[..., Kept], old: int) -> None:
    many = kept(max_age_s=100.0)
    many.add(old, ended_ago_s=101.0)
    many.add(5, "processing", ended_ago_s=101.0)
    many.add(3_000)
    read: list[int] = []
    looked_up: list[int] = []
    ended, first_header = many.journal.ended, many.journal.first_header

    def reading(**page: int) -> list[EndedRow]:
        rows = ended(**page)
        read.extend(row.seq for row in rows)
        return rows

    def looking_up(*, from_seq: int) -> tuple[int, bytes] | None:
        looked_up.append(from_seq)
        return first_header(from_seq=from_seq)

    many.journal.ended, many.journal.first_header = reading, looking_up  # type: ignore[method-assign]
    await many.tick()
    await many.tick()  # a step that was full has another after it
    assert read == list(range(1, old + 1))
    assert many.seqs == list(range(old + 1, old + 3_006))
    assert len(looked_up) < 45  # and not one for each job
    many.clock.advance(200.0)
    for _ in range(7):
        await many.tick()
    assert many.seqs == list(range(old + 1, old + 6))


async def test_jobs_that_are_live_do_not_count_against_the_number_kept(kept: Callable[..., Kept]) -> None:
    many = kept(max_jobs=10)
    many.add(20, "processing")
    many.add(11)
    await many.tick()
    assert many.seqs == [*range(1, 21), *range(22, 32)]


async def test_passes_are_a_minute_apart(kept: Callable[..., Kept]) -> None:
    old = kept(max_age_s=10.0)
    await old.tick()
    old.add(1, ended_ago_s=11.0)
    old.clock.advance(59.0)
    await old.tick()
    assert old.seqs == [1]
    old.clock.advance(1.0)
    await old.tick()
    assert old.seqs == []


async def test_keys_are_forgotten_by_their_own_age(kept: Callable[..., Kept]) -> None:
    old = kept(idempotency_s=100.0)
    now = old.clock.now()
    old.journal.commit(Rows(keys=[("old", "job-1", b"d", now - 101.0), ("new", "job-2", b"d", now - 99.0)]))
    await old.tick()
    assert set(old.journal.keys(["old", "new"])) == {"new"}


async def test_large_jobs_go_a_few_at_a_time(kept: Callable[..., Kept]) -> None:
    old = kept(max_jobs=0)
    old.add(6)
    large = b"x" * (3 * 2**20)
    old.journal.commit(Rows(results=[(1, large), (2, large), (3, large), (5, large * 4)]))
    await old.tick()
    assert old.deleted == [[1, 2], [3, 4], [5], [6]]


async def test_keys_and_batches_go_in_small_steps_however_many_are_over(kept: Callable[..., Kept]) -> None:
    old = kept(max_age_s=100.0, idempotency_s=100.0)
    then = old.clock.now() - 101.0
    old.journal.commit(
        Rows(
            keys=[(f"key-{number}", "job", b"d", then) for number in range(1_700)],
            batches=[(1, "batch", b"spec")],
            batch_states=[(1, b"b", then)],
            ends=[(1, n, n) for n in range(1, 2_301)],
        )
    )
    sizes: list[tuple[int, int]] = []

    def note(rows: Rows) -> None:
        sizes.append((len(old.journal._disk.keys), len(old.journal.batch_ends(1, after=0, limit=10_000))))

    old.journal.on_commit = note
    await old.tick()
    assert sizes == [(1_200, 1_800), (700, 1_300), (200, 800), (0, 300), (0, 0)]
    assert old.journal.batch("batch") is None
    old.clock.advance(60.0)
    await old.tick()
    assert len(sizes) == 5, "what is not there costs no commit"


async def test_only_one_step_is_under_way_while_the_disk_does_not_answer(kept: Callable[..., Kept]) -> None:
    old = kept(max_jobs=0)
    old.add(600)
    old.journal.hold()
    old.retention.tick()
    assert await asyncio.to_thread(old.journal.held.wait, 10.0)
    step = old.retention._step_task
    old.retention.tick()
    assert old.retention._step_task is step
    assert step is not None
    old.journal.release()
    await step
    assert old.seqs == []


async def test_a_journal_that_can_not_be_read_is_tried_again_later(
    kept: Callable[..., Kept], caplog: pytest.LogCaptureFixture
) -> None:
    old = kept(max_jobs=0)
    old.add(1)
    count, old.journal.count_jobs = old.journal.count_jobs, lambda: 1 // 0  # type: ignore[method-assign]
    await old.tick()
    assert "the next try is in 60 s" in caplog.text
    old.journal.count_jobs = count  # type: ignore[method-assign]
    await old.tick()
    assert old.seqs == [1]
    old.clock.advance(60.0)
    await old.tick()
    assert old.seqs == []


@pytest.mark.parametrize("later", [0, 1, 5, 50])
async def test_a_queue_that_is_closed_in_the_middle_of_a_step_ends_it(later: int) -> None:
    config = settings().model_copy(update={"retention": RetentionConfig(max_jobs=0)})
    queue = ServiceHarness(config)
    await queue.submit("a", "b")
    await queue.service.cancel(["a", "b"])
    queue.service._retention.tick()
    step = queue.service._retention._step_task
    assert step is not None
    await turns(later)
    await queue.service.close()
    assert step.done()
