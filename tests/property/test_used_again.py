"""Ids and keys from a small pool, used again and again, over restarts: memory equals disk, and no count is negative."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine import Exchange, Tick
from aiqueue.engine.schedule_records import SchedulesCall, ScheduleSpec
from aiqueue.errors import BatchNotFound, ValidationError
from aiqueue.journal.base import Journal
from aiqueue.protocol import BatchSpec, Need, Outcome, Submission, SubmitGroup
from aiqueue.service.recovery import load_engine
from aiqueue.submit_format import decode_groups, encode_groups
from aiqueue.testing.jobs import POOL, completed, failed, final, header, submission
from aiqueue.testing.manual_clock import ManualClock
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.service_harness import ServiceHarness
from tests.tools.sqlite_runs import OnSqlite

_T = TypeVar("_T")
IDS = [f"0190000{number}-0000-7000-8000-000000000000" for number in range(6)]
job_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)
batch_ids = st.sampled_from(["b0", "b1", "b2"])
keys = st.sampled_from(["", "", "", "scope:k0", "scope:k1"])
REFUSALS = {"duplicate_job", "duplicate_batch", "batch_not_found", "invalid_input", "idempotency_conflict"}


class UsedAgain(RuleBasedStateMachine):
    """A service whose callers choose the same ids over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.used: set[str] = set()
        self.made: list[Callable[[], Coroutine[Any, Any, object]]] = []  #: all calls so far, to be made again
        self.clock = ManualClock()
        self.queue = self.run(self.start(self.make_journal()))

    def make_journal(self) -> Journal:
        """Return the journal of this run."""
        return MemoryJournal()

    def reopen(self) -> Journal:
        """Return the journal as the next process finds it."""
        return self.queue.memory.crash()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Let the loop do ``work``."""
        return self.loop.run_until_complete(work)

    async def start(self, journal: Journal) -> ServiceHarness:
        """Return a queue on this machine's loop."""
        return ServiceHarness(journal=journal, clock=self.clock)

    # --- what callers do ---

    @rule(ids=job_ids, key=keys, retries=st.integers(0, 1))
    def submit(self, ids: list[str], key: str, retries: int) -> None:
        self.send(self.group(ids, key=key, max_retries=retries))

    @rule(ids=job_ids, batch=batch_ids, key=keys, is_open=st.booleans(), chain=st.booleans(), fail_fast=st.booleans())
    def submit_batch(self, ids: list[str], batch: str, key: str, is_open: bool, chain: bool, fail_fast: bool) -> None:
        group = self.group(ids, batch, key=key)
        group.batch = BatchSpec(batch, is_open=is_open, fail_fast=fail_fast, run="run" if is_open else "")
        if chain:
            for before, job in zip(group.jobs, group.jobs[1:], strict=False):
                job.header.needs, job.header.on_error = (Need(before.id),), "fail"
        self.send(group)

    @rule(ids=job_ids, batch=batch_ids, parent=job_ids)
    def submit_one_that_needs_others(self, ids: list[str], batch: str, parent: list[str]) -> None:
        group = self.group(ids[:1], batch)
        group.jobs[0].header.needs = tuple(Need(job_id) for job_id in parent if job_id != ids[0])
        group.jobs[0].header.on_error = "include" if group.jobs[0].header.needs else ""
        group.batch = BatchSpec(batch, kind="fan_in")
        self.send(group)

    @rule(ids=job_ids, batch=batch_ids)
    def submit_part(self, ids: list[str], batch: str) -> None:
        group = self.group(ids, batch)
        group.part_of = batch
        self.send(group)

    @rule(batch=batch_ids)
    def seal(self, batch: str) -> None:
        group = self.queue.service._engine.core.groups.live.get(batch)
        self.make(partial(self.ask, BatchCall(batch, "seal", group.stored.total if group else 1)))

    @rule(
        batch=batch_ids, action=st.sampled_from(["drop", "cancel", "pause", "resume", "retry_failed", "retry_failed"])
    )
    def steer(self, batch: str, action: str) -> None:
        self.make(partial(self.ask, BatchCall(batch, action, token=action)))

    @rule()
    def drop_run(self) -> None:
        self.make(partial(self.ask, BatchCall("run", "drop_run")))

    @rule(ids=job_ids)
    def cancel(self, ids: list[str]) -> None:
        self.make(lambda: self.queue.service.cancel(ids))

    @rule(ids=job_ids)
    def delete_dead_letters(self, ids: list[str]) -> None:
        self.make(lambda: self.queue.service.dead_letters.delete(ids))

    @rule(number=st.integers(0, 60))
    def an_old_call_arrives_late(self, number: int) -> None:
        if self.made:
            self.run(self.made[-1 - number % len(self.made)]())

    @rule(
        action=st.sampled_from(["add", "add", "run", "run", "pause", "resume", "remove"]),
        schedule=st.sampled_from(["s0", "s1"]),
        job=st.sampled_from([IDS[0], "r0", "r1"]),
    )
    def schedules(self, action: str, schedule: str, job: str) -> None:
        spec = ScheduleSpec(schedule, schedule, "0 * * * *", header=header(max_retries=0), payload=b"{}")
        call = SchedulesCall(action, schedule, spec=spec if action == "add" else None, job_id=job)
        self.make(lambda: self.queue.service.schedules.answer(call))

    # --- what workers and time do ---

    @rule(ends=st.lists(st.sampled_from(["completed", "failed", "final", "lost"]), min_size=1, max_size=4))
    def work(self, ends: list[str]) -> None:
        worker = f"worker-{len(self.made)}"
        for job_id, attempt in self.run(self.claim(worker, len(ends))):
            match ends.pop():
                case "completed":
                    self.make(partial(self.report, worker, completed(job_id, attempt)))
                case "lost":
                    self.make(partial(self.lose, worker))
                case "final":
                    self.make(partial(self.report, worker, failed(job_id, attempt, final())))
                case _:
                    self.make(partial(self.report, worker, failed(job_id, attempt)))

    @rule(seconds=st.sampled_from([1.0, 10.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.queue.clock.advance(seconds)
        self.run(self.tick())

    @rule(late=st.sampled_from([0, 0, 10]))
    def restart(self, late: int) -> None:
        self.run(self.settle())
        survivor = self.reopen()
        self.run(self.queue.service.close())
        self.queue = self.run(self.start(survivor))
        for call in self.made[-late:] if late else ():
            self.run(call())

    # --- what must always hold ---

    @invariant()
    def memory_equals_disk(self) -> None:
        self.run(self.settle())
        engine = self.queue.service._engine
        assert self.queue.service._faults.failed == ""
        loaded = load_engine(self.queue.settings, self.queue.journal, self.queue.clock)
        mine, its = engine.fingerprint(), loaded.fingerprint()
        assert {name: mine[name] for name in mine if name != "held"} == {
            name: its[name] for name in its if name != "held"
        }

    @invariant()
    def no_count_is_negative(self) -> None:
        core = self.queue.service._engine.core
        assert min([core.blocked, *core.waiting]) >= 0
        for group in core.groups.live.values():
            assert min([group.live, group.in_flight, *group.stored.ended.values(), *group.in_lanes.values()]) >= 0
            assert sum(group.stored.ended.values()) + group.live == group.stored.total

    # --- helpers ---

    def group(self, ids: list[str], batch: str = "", *, key: str = "", **fields: Any) -> SubmitGroup:
        """Return jobs of one group; ids that were used before are said to be."""
        known = any(job_id in self.used for job_id in ids)
        self.used.update(ids)
        of_all = replace(header(batch_id=batch, max_retries=fields.get("max_retries", 0)))
        jobs: list[Submission] = [submission(job_id, replace(of_all, index=at)) for at, job_id in enumerate(ids)]
        jobs[0].header.idempotency_key = key
        return SubmitGroup(jobs, known)

    def send(self, group: SubmitGroup) -> None:
        """Submit, and again as if the answer was lost."""
        for _ in range(2):
            self.make(partial(self.submit_once, encode_groups([group])))
            group.maybe_known = True

    async def submit_once(self, sent: bytes) -> None:
        """Submit what a client once sent."""
        (refusal,) = await self.queue.service.submit(decode_groups(sent))
        assert refusal is None or refusal.kind in REFUSALS, refusal

    async def report(self, worker: str, outcome: Outcome) -> None:
        """Let a worker say what an attempt came to."""
        await self.queue.exchange(outcome, worker=worker, slots=0)

    async def lose(self, worker: str) -> None:
        """Let the pool say that a worker is dead."""
        await self.queue.service.lose_worker(worker, "gone", crashed=True)

    async def ask(self, call: BatchCall) -> None:
        """Do something to a batch, or be told that it can't be."""
        try:
            view = await self.queue.service.batches.call(call)
        except (BatchNotFound, ValidationError):
            return
        assert min([0, view.waiting, view.processing, *view.ended.values()]) == 0

    def make(self, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Make a call, which may come again later."""
        self.made.append(call)
        self.run(call())

    async def claim(self, worker: str, most: int) -> list[tuple[str, int]]:
        """Take jobs that wait, if there are any."""
        granted, _ = self.queue.service._apply(Exchange(worker, POOL, most, []))
        return [(job.id, job.attempt) for job in granted.claims]

    async def tick(self) -> None:
        """Let time do its part."""
        self.queue.service._apply(Tick())

    async def settle(self) -> None:
        """Wait until all is on disk."""
        await self.queue.service.get_jobs([])

    def teardown(self) -> None:
        """End the queue and its loop."""
        self.run(self.queue.service.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


class SqliteUsedAgain(OnSqlite, UsedAgain):
    """The same on the real journal."""


TestUsedAgain = UsedAgain.TestCase
TestUsedAgain.settings = settings(max_examples=60, stateful_step_count=40)
TestUsedAgainOnSqlite = SqliteUsedAgain.TestCase
TestUsedAgainOnSqlite.settings = settings(max_examples=15, stateful_step_count=40)
