"""Open batches dropped in many small turns, among cancels, deadlines, crashes and submits of the same again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace as replaced
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, ResultsCall
from aiqueue.errors import AIQueueError, BatchNotFound
from aiqueue.journal.base import Journal
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import BatchSpec, Event, SubmitGroup
from aiqueue.service.recovery import load_engine
from aiqueue.testing.jobs import header, submission
from aiqueue.testing.manual_clock import ManualClock
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.service_harness import ServiceHarness
from tests.tools.sqlite_runs import OnSqlite
from tests.tools.turns import until

_T = TypeVar("_T")
BATCH = "the-batch"
IDS = [f"0190000{number}-0000-7000-8000-000000000000" for number in range(8)]
AT_ONCE = 2  # jobs in one turn: a drop takes several
some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True)
seconds = st.sampled_from([1.0, 10.0])


class DroppedBatches(RuleBasedStateMachine):
    """A service without a clock of its own: each tick is a step of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.sent: set[str] = set()  #: of the batch that is open
        self.used: set[str] = set()
        self.keyed = False  #: its first part had a key
        self.is_dropping = False
        self.drops: list[asyncio.Task[Any]] = []
        self.events_before: list[Event] = []
        self.queue = self.run(self.start(self.make_journal()))

    def make_journal(self) -> Journal:
        """Return the journal of this run."""
        return MemoryJournal()

    def reopen(self) -> Journal:
        """Return the journal as the next process finds it."""
        return self.queue.memory.crash()

    async def start(self, journal: Journal) -> ServiceHarness:
        """Return a queue that ticks when it is told to."""
        queue = ServiceHarness(journal=journal, clock=self.clock)
        queue.service._ticker.close()
        core = queue.service._engine.core
        core.policy = replaced(core.policy, most_at_once=AT_ONCE)
        return queue

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Let the loop do ``work``."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 120.0))

    # --- what callers do ---

    @precondition(lambda self: not self.is_dropping)
    @rule(ids=some_ids, key=st.booleans(), expires_in_ms=st.sampled_from([0, 0, 5_000]))
    def send_a_part(self, ids: list[str], key: bool, expires_in_ms: int) -> None:
        group = self.part(ids, expires_in_ms)
        if not self.sent and key:
            group.jobs[0].header.idempotency_key = "scope:key"
            self.keyed = True
        refusals = self.run(self.queue.service.submit([group]))
        if refusals == [None]:
            self.sent.update(ids)
        else:  # one of them was sent already, with another index or deadline
            assert self.sent.intersection(ids), refusals

    @rule(ids=some_ids)
    def cancel(self, ids: list[str]) -> None:
        replies = self.run(self.queue.service.cancel(ids))
        if self.is_dropping:
            assert {(reply.status, reply.cancelled) for reply in replies} == {("", False)}

    @precondition(lambda self: self.sent)
    @rule()
    def begin_to_drop(self) -> None:
        if not self.is_dropping:
            self.events_before = self.run(self.queue.events())
        self.drops.append(self.loop.create_task(self.drop()))
        self.is_dropping = True
        self.run(asyncio.sleep(0))

    @precondition(lambda self: self.is_dropping)
    @rule(again=st.booleans(), key=st.booleans(), outside=st.booleans())
    def end_the_drop(self, again: bool, key: bool, outside: bool) -> None:
        """Wait for the answer. Whatever came of it: perhaps with a submit of the same jobs under way."""
        submit = None
        if again:
            group = self.part(sorted(self.sent), 0, batch="other-batch" if outside else BATCH)
            group.batch, group.part_of = BatchSpec("other-batch" if outside else BATCH, is_open=True), ""
            group.jobs[0].header.idempotency_key = "scope:key" if key else ""
            submit = self.loop.create_task(self.queue.service.submit([group]))
        self.run(self.answered(*self.drops, *([submit] if submit else [])))
        for task in self.drops:
            assert task.exception() is None or isinstance(task.exception(), BatchNotFound), task.exception()
        if submit is None:
            self.nothing_is_left()
            self.send_the_same_again()
        else:
            assert submit.result() == [None]
            self.is_as_the_first_time(group)
            self.run(self.undo(group))
        self.forgotten()

    # --- what time and faults do ---

    @rule(seconds=seconds)
    def tick(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.run(self.turn())

    @rule(is_settled=st.booleans())
    def crash(self, is_settled: bool) -> None:
        if is_settled:
            self.run(self.settle())
        survivor = self.reopen()
        self.run(self.queue.service.close())
        for error in self.run(self.answers_of(self.drops)):
            assert isinstance(error, AIQueueError | None), error
        self.drops.clear()
        self.queue = self.run(self.start(survivor))
        self.events_before = []
        if self.is_dropping and BATCH not in self.queue.service._engine.core.groups.live:
            self.nothing_is_left()
            self.forgotten()
        elif self.is_dropping:
            views = self.run(self.queue.service.get_jobs(sorted(self.sent)))
            self.is_dropping = views[0] is None  # else the drop was lost, and all of it must be there

    # --- what must always hold ---

    @invariant()
    def memory_equals_disk(self) -> None:
        self.run(self.settle())
        engine = self.queue.service._engine
        assert self.queue.service._faults.failed == ""
        loaded = load_engine(self.queue.settings, self.queue.journal, self.clock)
        assert engine.fingerprint() == loaded.fingerprint()

    @invariant()
    def all_of_it_is_seen_or_nothing(self) -> None:
        service = self.queue.service
        views = self.run(service.get_jobs(IDS))
        states = self.run(service.batches.states(IDS))
        seen = {job_id for job_id, view in zip(IDS, views, strict=True) if view is not None}
        assert seen == {job_id for job_id, state in zip(IDS, states, strict=True) if state}
        assert seen == (set() if self.is_dropping else self.sent)
        if self.is_dropping:
            for call in (service.batches.call(BatchCall(BATCH, "status")), service.batches.results(_PAGE)):
                assert isinstance(self.run(self.error_of(call)), BatchNotFound)
            assert self.run(self.queue.events()) == self.events_before

    def nothing_is_left(self) -> None:
        """See that neither memory nor disk has anything of the batch, but for the numbers that were used."""
        fresh = load_engine(self.queue.settings, MemoryJournal(), self.clock).fingerprint()
        mine = self.queue.service._engine.fingerprint()
        for found in (fresh, mine):
            for name in ("next_seq", "next_event", "next_batch", "clock"):
                del found["counters"][name]
        assert mine == fresh
        journal = self.queue.journal
        assert journal.count_jobs() == 0
        assert journal.keys(["scope:key"]) == {}
        assert journal.batch(BATCH) is None
        if isinstance(journal, MemoryJournal):
            disk = journal._disk
            left = (disk.jobs, disk.states, disk.ended_at, disk.batches, disk.batch_states, disk.parts, disk.ends)
            assert left == ({},) * 7
        else:
            assert isinstance(journal, SqliteJournal)
            tables = ("jobs", "states", "batches", "batch_states", "parts", "ends", "idempotency")
            assert {table: journal._reader.execute(f"SELECT * FROM {table}").fetchall() for table in tables} == {
                table: [] for table in tables
            }

    # --- helpers ---

    def part(self, ids: list[str], expires_in_ms: int, *, batch: str = BATCH) -> SubmitGroup:
        """Return jobs as a part of a batch, its first one if there is none."""
        known = bool(self.used.intersection(ids))
        self.used.update(ids)
        of_all = replace(header(batch_id=batch), expires_in_ms=expires_in_ms)
        jobs = [submission(job_id, replace(of_all, index=at)) for at, job_id in enumerate(ids)]
        if self.sent and batch == BATCH:
            return SubmitGroup(jobs, known, part_of=BATCH)
        return SubmitGroup(jobs, known, batch=BatchSpec(batch, is_open=True))

    def send_the_same_again(self) -> None:
        """See that the same ids, batch and key are new ones."""
        group = self.part(sorted(self.sent), 0)
        group.part_of, group.batch = "", BatchSpec(BATCH, is_open=True)
        group.jobs[0].header.idempotency_key = "scope:key" if self.keyed else ""
        assert self.run(self.queue.service.submit([group])) == [None]
        self.is_as_the_first_time(group)
        self.run(self.undo(group))

    def is_as_the_first_time(self, group: SubmitGroup) -> None:
        """See that all of a group waits in its batch, and that nothing else is there."""
        assert group.batch is not None
        ids = [job.id for job in group.jobs]
        assert [view and view.status for view in self.run(self.queue.service.get_jobs(ids))] == ["blocked"] * len(ids)
        view = self.run(self.queue.service.batches.call(BatchCall(group.batch.id, "status")))
        assert (view.status, view.total, view.ended) == ("open", len(ids), {})
        assert self.queue.journal.count_jobs() == len(ids)

    async def undo(self, group: SubmitGroup) -> None:
        """Drop what was sent again."""
        assert group.batch is not None
        drop = asyncio.ensure_future(self.queue.service.batches.call(BatchCall(group.batch.id, "drop")))
        await self.answered(drop)
        assert drop.result().status == "dropped"

    def forgotten(self) -> None:
        """Begin anew."""
        self.nothing_is_left()
        self.sent, self.drops = set(), []
        self.is_dropping = self.keyed = False

    async def drop(self) -> None:
        """Drop the batch."""
        await self.queue.service.batches.call(BatchCall(BATCH, "drop"))

    async def answered(self, *tasks: asyncio.Future[Any]) -> None:
        """Tick until all of these are answered."""

        def is_done() -> bool:
            self.queue.service._ticker.tick()
            return all(task.done() for task in tasks) and not self.queue.service._engine.core.groups.stopping

        await until(is_done)
        await self.settle()

    async def turn(self) -> None:
        """Let the queue do one turn."""
        self.queue.service._ticker.tick()

    async def settle(self) -> None:
        """Wait until all is on disk."""
        await self.queue.service.get_jobs([])

    async def answers_of(self, tasks: list[asyncio.Task[Any]]) -> list[Any]:
        """Wait until calls are answered; return their errors, None for those that have none."""
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def error_of(self, call: Coroutine[Any, Any, object]) -> BaseException | None:
        """Return what a call raises."""
        try:
            await call
        except AIQueueError as error:
            return error
        return None

    def teardown(self) -> None:
        """End the queue and its loop."""
        self.run(self.queue.service.close())
        self.run(self.answers_of(self.drops))
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


_PAGE = ResultsCall(BATCH, 0, 10, with_live=True)


class SqliteDroppedBatches(OnSqlite, DroppedBatches):
    """The same on the real journal."""


TestDroppedBatches = DroppedBatches.TestCase
TestDroppedBatches.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDroppedBatchesOnSqlite = SqliteDroppedBatches.TestCase
TestDroppedBatchesOnSqlite.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
