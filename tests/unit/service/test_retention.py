"""Forgetting jobs that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue import protocol
from aiqueue.config import RetentionConfig
from aiqueue.engine.batch_records import StoredBatch, encode_batch
from aiqueue.engine.effects import KeyRow, Rows
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
        self.needed: set[str] = set()
        self.retention = Retention(
            RetentionConfig(**config),
            self.journal,
            self.commits,
            self.clock,
            lambda: self.live,
            lambda job_id: job_id in self.needed,
            self._followed,
            self._tried_again,
        )
        self.deleted: list[list[int]] = []
        self.journal.on_commit = lambda rows: self.deleted.append(rows.deletes) if rows.deletes else None

    async def _followed(self, job_ids: Collection[str]) -> tuple[set[str], set[str]]:
        return set(), set()

    async def _tried_again(self, job_ids: Collection[str]) -> set[str]:
        return set()

    def add(self, count: int, state: str = "completed", *, ended_ago_s: float = 0.0, took_s: float = 1.0) -> None:
        """Add jobs in one state, after those that are there."""
        first = len(self.journal._disk.jobs) + sum(map(len, self.deleted)) + 1
        seqs = range(first, first + count)
        ended_at = self.clock.now() - ended_ago_s
        column = ended_at if state in TERMINAL else 0.0
        progress = encode_progress(Progress(finished_at=ended_at))
        accepted = protocol.encode(replace(header(), created_at=ended_at - took_s))
        self.live += 0 if state in TERMINAL else count
        self.journal.commit(
            Rows(
                jobs=[(seq, f"job-{seq}", accepted, b"p") for seq in seqs],
                states=[(seq, state, progress, column) for seq in seqs] if state else [],
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


@pytest.mark.parametrize("old", [0, 1, 2, 3, 499, 500, 501, 700])
async def test_what_ended_too_late_to_be_too_old_is_never_read(kept: Callable[..., Kept], old: int) -> None:
    many = kept(max_age_s=100.0)
    many.add(3_000, took_s=2 * DAY_S)  # accepted long ago
    many.add(5, "processing", ended_ago_s=101.0)
    many.add(old, ended_ago_s=101.0)
    read: list[int] = []
    ended = many.journal.ended

    def reading(**page: Any) -> list[EndedRow]:
        rows = ended(**page)
        read.extend(row.seq for row in rows)
        return rows

    many.journal.ended = reading  # type: ignore[method-assign]
    await many.tick()
    assert read == list(range(3_006, 3_006 + old))
    assert many.seqs == list(range(1, 3_006))
    many.clock.advance(200.0)
    await many.tick()
    assert many.seqs == list(range(3_001, 3_006))


async def test_beyond_the_count_what_ended_first_goes_first_whenever_it_was_accepted(kept: Callable[..., Kept]) -> None:
    many = kept(max_jobs=10)
    many.add(1, ended_ago_s=1.0, took_s=DAY_S)  # waited long, and ended just now
    many.add(1_000, ended_ago_s=50.0)
    many.add(9, ended_ago_s=20.0)
    await many.tick()
    assert many.seqs == [1, *range(1_002, 1_011)]


@pytest.mark.parametrize("config", [{"max_age_s": 100.0}, {"max_jobs": 0}])
async def test_what_a_live_job_needs_is_passed_over_and_goes_when_it_does_not(
    kept: Callable[..., Kept], config: dict[str, Any]
) -> None:
    many = kept(**config)
    many.add(1_100, ended_ago_s=101.0)
    many.needed = {f"job-{seq}" for seq in (1, 2, 499, 500, 501, 1_100)}
    await many.tick()
    assert many.seqs == [1, 2, 499, 500, 501, 1_100]
    many.needed.clear()
    many.clock.advance(60.0)
    await many.tick()
    assert many.seqs == []


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


async def test_a_key_is_forgotten_so_long_after_the_end_of_its_job_and_never_while_it_lives(
    kept: Callable[..., Kept],
) -> None:
    old = kept(idempotency_s=100.0, max_age_s=1_000.0)
    old.add(1, "scheduled")
    old.add(1, ended_ago_s=99.0)
    old.add(1, ended_ago_s=101.0)
    long_ago = old.clock.now() - 5_000.0
    old.journal.commit(
        Rows(keys=[KeyRow(f"key-{seq}", f"job-{seq}", b"d", long_ago, seq, seq) for seq in (1, 2, 3, 4)])
    )
    names = [f"key-{seq}" for seq in (1, 2, 3, 4)]
    await old.tick()
    assert set(old.journal.keys(names)) == {"key-1", "key-2"}
    old.clock.advance(60.0)
    await old.tick()
    assert set(old.journal.keys(names)) == {"key-1"}
    ended = encode_progress(Progress(finished_at=old.clock.now()))
    old.journal.commit(Rows(states=[(1, "completed", ended, old.clock.now())]))
    old.live -= 1
    old.clock.advance(99.0)
    await old.tick()
    assert set(old.journal.keys(names)) == {"key-1"}
    old.clock.advance(101.0)
    await old.tick()
    assert old.journal.keys(names) == {}


async def test_the_key_of_a_batch_is_kept_while_the_batch_lives_though_its_first_job_ended_long_ago(
    kept: Callable[..., Kept],
) -> None:
    old = kept(idempotency_s=100.0, max_age_s=10_000.0)
    long_ago = old.clock.now() - 5_000.0
    progress = encode_progress(Progress(finished_at=long_ago))

    def batch(ended_at: float) -> list[tuple[int, bytes, float]]:
        return [(1, encode_batch(StoredBatch(phase="running", ended_at=ended_at)), ended_at)]

    old.journal.commit(
        Rows(
            jobs=[(1, "job-1", protocol.encode(header(batch_id="nightly")), b"p")],
            states=[(1, "completed", progress, long_ago)],
            keys=[KeyRow("key", "job-1", b"d", long_ago, 1, 1, 1)],
            batches=[(1, "nightly", b"spec")],
            batch_states=batch(0.0),
        )
    )
    await old.tick()
    assert set(old.journal.keys(["key"])) == {"key"}
    old.journal.commit(Rows(batch_states=batch(old.clock.now())))
    old.clock.advance(101.0)
    await old.tick()
    assert old.journal.keys(["key"]) == {}


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
            keys=[KeyRow(f"key-{number}", "job", b"d", then) for number in range(1_700)],
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
    assert sizes == [
        *((left, 2_300) for left in (1_200, 700, 200, 0)),
        *((0, left) for left in (1_800, 1_300, 800, 300, 0)),
    ]
    assert old.journal.batch("batch") is None
    old.clock.advance(60.0)
    await old.tick()
    assert len(sizes) == 9, "what is not there costs no commit"


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
    assert "tries again in 60 s" in caplog.text
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
