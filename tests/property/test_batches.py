"""Random lives of batches, chains and graphs: limits, order, counts, all or nothing, and a restart at any moment."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from msgspec.structs import replace

from aiqueue.engine import EnginePolicy, GatePolicy, RetryPolicy, Route, Submit
from aiqueue.engine.commands import Steer
from aiqueue.engine.states import TERMINAL
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import BatchSpec, Need, Submission, SubmitGroup
from aiqueue.testing.jobs import cancelled, completed, failed, final, header
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.queue_harness import QueueHarness

POLICY = EnginePolicy(
    routes={"sim": Route("pool"), "other": Route("pool")},
    retry=RetryPolicy(base_s=1.0, jitter=0.0, max_crashes=2),
    gates={"sim": GatePolicy(max_concurrent=3, adaptive=False, breaker_failures=1_000_000, breaker_window=1_000_000)},
    ageing=0.0,
)
workers = st.sampled_from(["w1", "w2"])
kinds = st.sampled_from(["completed", "completed", "retry", "final", "handed back"])
OUTCOMES = {
    "completed": completed,
    "retry": failed,
    "final": lambda job_id, attempt: failed(job_id, attempt, final()),
    "handed back": cancelled,
}


@st.composite
def specs(draw: st.DrawFn) -> BatchSpec:
    """Return what a client says of a batch."""
    return BatchSpec(
        "",
        max_concurrency=draw(st.integers(0, 3)),
        fail_fast=draw(st.sampled_from([False, False, True])),
        max_failed_ratio=draw(st.sampled_from([1.0, 1.0, 0.5])),
    )


class BatchMachine(RuleBasedStateMachine):
    """An engine whose every commit may be its last."""

    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.queue = QueueHarness(POLICY, self.make_journal())
        self.specs: dict[str, BatchSpec] = {}
        self.jobs: dict[str, list[Submission]] = {}
        self.open: set[str] = set()
        self.gone: set[str] = set()
        self.paused: set[str] = set()

    def make_journal(self) -> MemoryJournal | SqliteJournal:
        """Return the journal of this run."""
        return MemoryJournal()

    # --- what clients do ---

    @rule(target=batches, spec=specs(), size=st.integers(1, 8), is_open=st.booleans(), draw=st.data())
    def submit(self, spec: BatchSpec, size: int, is_open: bool, draw: st.DataObject) -> object:
        batch_id = f"batch-{len(self.specs)}"
        self.specs[batch_id] = spec = replace(spec, id=batch_id, is_open=is_open)
        self.jobs[batch_id] = self._make(batch_id, size, draw)
        assert self.queue.submit_groups(SubmitGroup(self.jobs[batch_id], batch=spec)) == [None]
        if is_open:
            self.open.add(batch_id)
        return batch_id

    @rule(target=batches, size=st.integers(1, 5), on_error=st.sampled_from(["fail", "skip", "include"]))
    def submit_chain(self, size: int, on_error: str) -> object:
        batch_id = f"batch-{len(self.specs)}"
        spec = self.specs[batch_id] = BatchSpec(batch_id, kind="chain")
        jobs = [
            self._job(batch_id, at, needs=(Need(f"{batch_id}-{at - 1}"),) if at else (), on_error=on_error)
            for at in range(size)
        ]
        self.jobs[batch_id] = jobs
        assert self.queue.submit_groups(SubmitGroup(jobs, batch=spec)) == [None]
        return batch_id

    @rule(target=batches, of=batches, on_error=st.sampled_from(["fail", "skip", "include"]))
    def fan_in(self, of: str, on_error: str) -> object:
        parents = [job.id for job in self.jobs[of] if self.queue.is_live(job.id) or self.queue.state_of(job.id)]
        ended = {job_id: self.queue.state_of(job_id) for job_id in parents if not self.queue.is_live(job_id)}
        if of in self.open or of in self.gone or not parents:
            return multiple()
        batch_id = f"batch-{len(self.specs)}"
        spec = self.specs[batch_id] = BatchSpec(batch_id, kind="fan_in")
        self.jobs[batch_id] = [self._job(batch_id, 0, needs=tuple(map(Need, parents)), on_error=on_error)]
        group = SubmitGroup(self.jobs[batch_id], batch=spec)
        assert self.queue.do(Submit([group], ended=ended)).reply == [None]
        return batch_id

    @rule(batch=batches, size=st.integers(1, 8), draw=st.data())
    def add_part(self, batch: str, size: int, draw: st.DataObject) -> None:
        part = self._make(batch, size, draw)
        (refusal,) = self.queue.submit_groups(SubmitGroup(part, part_of=batch))
        assert (refusal is None) == (batch in self.open)
        if refusal is None:
            self.jobs[batch] += part

    @rule(batch=batches)
    def seal(self, batch: str) -> None:
        if batch in self.open:
            wrong = self.queue.do(Steer(batch, "seal", len(self.jobs[batch]) + 1)).reply
            assert wrong is not None
            assert self.queue.do(Steer(batch, "seal", len(self.jobs[batch]))).reply is None
            self.open.discard(batch)

    @rule(batch=batches)
    def drop(self, batch: str) -> None:
        self.queue.do(Steer(batch, "drop"))
        if batch in self.open:
            self.open.discard(batch)
            self.gone.add(batch)

    @rule(batch=batches, action=st.sampled_from(["cancel", "pause", "resume"]))
    def steer(self, batch: str, action: str) -> None:
        if batch not in self.open and batch not in self.gone and self._is_live(batch):
            assert self.queue.do(Steer(batch, action)).reply is None
            if action != "cancel":
                (self.paused.add if action == "pause" else self.paused.discard)(batch)

    @rule(batch=batches, at=st.integers(0, 7))
    def cancel_one(self, batch: str, at: int) -> None:
        self.queue.cancel(f"{batch}-{at}")

    # --- what workers and time do ---

    @rule(worker=workers, slots=st.integers(0, 6), reports=st.lists(kinds, max_size=6))
    def exchange(self, worker: str, slots: int, reports: list[str]) -> None:
        held = sorted(self._held(worker))
        outcomes = [OUTCOMES[kind](job_id, attempt) for kind, (job_id, attempt) in zip(reports, held, strict=False)]
        granted = self.queue.exchange(*outcomes, worker=worker, slots=slots, pool="pool")
        for job in granted.claims:
            batch = job.batch_id
            assert batch not in self.open, "nothing of a batch runs before it is sealed"
            assert batch not in self.gone
            assert batch not in self.paused
            self._check_order(job.id)

    @rule(worker=workers)
    def lose(self, worker: str) -> None:
        self.queue.lose(worker)

    @rule(seconds=st.sampled_from([0.0, 2.0, 30.0]))
    def tick(self, seconds: float) -> None:
        self.queue.tick(seconds)

    @rule()
    def restart(self) -> None:
        before = self.queue.engine.fingerprint()
        self.queue.restart()
        assert self.queue.engine.fingerprint() == before

    # --- what must always hold ---

    @invariant()
    def no_batch_is_over_its_limit(self) -> None:
        in_flight = Counter(
            self.queue.job(job_id).batch_id for worker in ("w1", "w2") for job_id, _ in self._held(worker)
        )
        for batch, count in in_flight.items():
            assert count <= (self.specs[batch].max_concurrency or count)

    @invariant()
    def every_job_counts_once(self) -> None:
        self.gone |= {batch for batch in self.open if batch not in self.queue.engine.core.groups.live}
        self.open -= self.gone
        for batch, jobs in self.jobs.items():
            ends = [self.queue.state_of(job.id) for job in jobs if not self.queue.is_live(job.id)]
            group = self.queue.engine.core.groups.live.get(batch)
            if batch in self.gone:
                assert group is None
                assert not any(self.queue.is_live(job.id) for job in jobs)
            elif group is None:
                assert len(ends) == len(jobs)
            else:
                assert group.live == len(jobs) - len(ends)
                assert {state: count for state, count in group.stored.ended.items() if count} == Counter(ends)

    def teardown(self) -> None:
        """Let all that was accepted come to its end: nothing hangs."""
        for batch in [*self.open]:
            self.drop(batch)
        for batch in [*self.paused]:
            self.queue.do(Steer(batch, "resume"))
        for _ in range(3 * sum(map(len, self.jobs.values())) + 10):
            for worker in ("w1", "w2"):
                done = [completed(job_id, attempt) for job_id, attempt in self._held(worker)]
                self.queue.exchange(*done, worker=worker, slots=5, pool="pool")
            self.queue.tick(40.0)
        assert not self.queue.engine.core.live
        assert not self.queue.engine.core.groups.live
        assert not self.queue.engine.core.blocked
        assert sum(self.queue.engine.core.waiting) == 0
        for batch, jobs in self.jobs.items():
            stored = self.queue.journal.batch(batch)
            assert (stored is None) == (batch in self.gone)
            if stored:
                ends = self.queue.journal.batch_ends(stored[0], after=0, limit=10_000)
                seqs = {job.seq for job in self.queue.journal.jobs([job.id for job in jobs]).values()}
                assert sorted(ends) == sorted(seqs)

    # --- helpers ---

    def _make(self, batch: str, size: int, draw: st.DataObject) -> list[Submission]:
        first = len(self.jobs.get(batch, ()))
        levels = draw.draw(st.lists(st.sampled_from(list(AIJobPriority)), min_size=size, max_size=size))
        return [
            self._job(batch, first + at, level=level, provider=("sim", "other")[at % 2])
            for at, level in enumerate(levels)
        ]

    def _job(
        self,
        batch: str,
        at: int,
        *,
        level: AIJobPriority = AIJobPriority.MEDIUM,
        provider: str = "sim",
        **fields: object,
    ) -> Submission:
        made = replace(header(level, provider=provider, max_retries=1, batch_id=batch), index=at, **fields)
        return Submission(f"{batch}-{at}", made, b"p")

    def _held(self, worker: str) -> list[tuple[str, int]]:
        found = self.queue.engine.core.leases.find(worker)
        return [(job.id, job.attempt) for job in found.held.values()] if found else []

    def _is_live(self, batch: str) -> bool:
        return batch in self.queue.engine.core.groups.live

    def _check_order(self, job_id: str) -> None:
        batch, _, _ = job_id.rpartition("-")
        made = next(job for job in self.jobs[batch] if job.id == job_id).header
        for need in made.needs:
            state = self.queue.state_of(need.job_id)
            assert state in TERMINAL, "a job runs before one that it needs has ended"
            assert made.on_error != "fail" or state == "completed"


class SqliteBatchMachine(BatchMachine):
    """The same on the real journal."""

    def make_journal(self) -> SqliteJournal:
        """Return a journal that waits for no disk."""
        self.folder = tempfile.TemporaryDirectory()
        return SqliteJournal(Path(self.folder.name) / "journal.db", durability="off")

    def teardown(self) -> None:
        """End, and remove the files."""
        super().teardown()
        self.queue.journal.close()
        self.folder.cleanup()


TestBatches = BatchMachine.TestCase
TestBatches.settings = settings(max_examples=150, stateful_step_count=40)
TestBatchesOnSqlite = SqliteBatchMachine.TestCase
TestBatchesOnSqlite.settings = settings(max_examples=25, stateful_step_count=40)
