"""Random command sequences against a plain model, the invariants, and a restart after every commit."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from aiqueue.engine import QueueEngine
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import JobHeader, Submission, SubmitGroup
from aiqueue.testing.memory_journal import MemoryJournal
from tests.property.commands import POLICY, POOLS, Model, draws, headers, kinds, outcome, per_job, steps_s, workers
from tests.tools.queue_harness import QueueHarness, ids

Attempt = tuple[str, str, int]  #: worker, job, number


class QueueMachine(RuleBasedStateMachine):
    """The engine and the model are told the same; they must agree on every answer and on where every job is."""

    jobs = Bundle("jobs")
    attempts = Bundle("attempts")  #: that a worker was given: what it may report once, twice or too late

    def __init__(self) -> None:
        super().__init__()
        self.queue = QueueHarness(POLICY, self.make_journal())
        self.model = Model()
        self.leases: Counter[tuple[str, int]] = Counter()
        self.level_of_claim: list[tuple[str, int]] = []

    def make_journal(self) -> MemoryJournal | SqliteJournal:
        """Return the journal of this run."""
        return MemoryJournal()

    @property
    def now(self) -> float:
        """The time of both."""
        return self.queue.clock.now()

    # --- commands ---

    @rule(target=jobs, wanted=st.lists(headers(), min_size=1, max_size=6))
    def submit(self, wanted: list[JobHeader]) -> object:
        accepted = [self.model.submit(header, now=self.now) for header in wanted]
        group = SubmitGroup([Submission(job.id, job.header, b"p") for job in accepted])
        assert self.queue.submit_groups(group) == [None]
        return multiple(*(job.id for job in accepted))

    @rule(job=jobs, header=headers())
    def submit_again(self, job: str, header: JobHeader) -> None:
        group = SubmitGroup([Submission("another", header, b"p"), Submission(job, header, b"p")])
        known = {} if self.queue.is_live(job) else {job: False}
        (refusal,) = self.queue.submit_groups(group, journaled=known)
        assert refusal is not None
        assert refusal.job_id == job

    @rule(target=attempts, worker=workers, slots=st.integers(0, 4), draw=draws)
    def exchange(self, worker: str, slots: int, draw: float) -> object:
        return self._exchange(worker, slots, draw, [])

    @rule(target=attempts, reported=consumes(attempts), kind=kinds, slots=st.integers(0, 4), draw=draws)
    def report(self, reported: Attempt, kind: str, slots: int, draw: float) -> object:
        return self._exchange(reported[0], slots, draw, [(reported, kind)])

    @rule(target=attempts, first=attempts, more=st.lists(attempts, max_size=3), kinds=st.lists(kinds), draw=draws)
    def report_many_and_perhaps_again(
        self, first: Attempt, more: list[Attempt], kinds: list[str], draw: float
    ) -> object:
        mine = [attempt for attempt in (first, *more) if attempt[0] == first[0]]
        return self._exchange(first[0], 4, draw, list(zip(mine, kinds, strict=False)))

    @rule(attempt=attempts, kind=kinds, liar=workers)
    def report_for_another_worker(self, attempt: Attempt, kind: str, liar: str) -> None:
        if liar != attempt[0] and attempt[1] not in {job.id for job in self.model.held(liar)}:
            self._exchange(liar, 0, 0.0, [(attempt, kind)])

    @rule(target=attempts, worker=workers, forgotten=st.sets(st.integers(0, 9)), slots=st.integers(0, 4))
    def agree_after_a_lost_call(self, worker: str, forgotten: set[int], slots: int) -> object:
        in_order = sorted(self.model.held(worker), key=lambda job: (job.header.level, job.seq))
        held = [(job.id, job.attempt) for job in in_order]
        missed = [attempt for at, attempt in enumerate(held) if at in forgotten]
        running = [attempt for attempt in held if attempt not in missed] + [("job-0", 1)]
        granted = self.queue.exchange(worker=worker, pool=POOLS[worker], slots=slots, running=running)
        self.model.heard[worker] = self.now
        again, new = granted.claims[: len(missed)], granted.claims[len(missed) :]
        assert [(job.id, job.attempt) for job in again] == missed
        assert ids(new) == self.model.claim(worker, slots, now=self.now)
        cancelling = {(job.id, job.attempt) for job in self.model.held(worker) if job.state == "cancelling"}
        assert set(granted.cancels) == cancelling | {("job-0", 1)}
        return self._granted(worker, ids(new))

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        assert self.queue.cancel(job).status == self.model.cancel(job)

    @rule(worker=workers, crashed=st.booleans())
    def lose(self, worker: str, crashed: bool) -> None:
        assert self.queue.lose(worker, crashed=crashed) == self.model.lose(worker, crashed=crashed)

    @rule(seconds=steps_s, speaking=st.sets(workers))
    def let_time_pass(self, seconds: float, speaking: set[str]) -> None:
        self.queue.clock.advance(seconds)
        for worker in sorted(speaking):
            self._exchange(worker, 0, 0.0, [])
        self.queue.tick()
        self.model.tick(self.now)

    @rule()
    def restart(self) -> None:
        before = self.queue.engine.fingerprint()
        self.queue.restart()
        assert self.queue.engine.fingerprint() == before
        self.model.restarted(now=self.now)

    def _exchange(self, worker: str, slots: int, draw: float, reported: list[tuple[Attempt, str]]) -> object:
        outcomes = [outcome(kind, job_id, attempt) for (_, job_id, attempt), kind in reported]
        granted = self.queue.exchange(*outcomes, worker=worker, pool=POOLS[worker], slots=slots, draw=draw)
        self.model.heard[worker] = self.now
        for each in outcomes:
            self.model.report(worker, each, now=self.now)
            job = self.model.jobs[each.job_id]
            if job.state == "scheduled" and job.attempt == each.attempt and job.run_at <= self.now:
                job.run_at = self._wait_of(job.id, job.retries)
        assert ids(granted.claims) == self.model.claim(worker, slots, now=self.now)
        return self._granted(worker, ids(granted.claims))

    def _wait_of(self, job_id: str, retries: int) -> float:
        run_at = self.queue.job(job_id).run_at
        shortest = min(POLICY.retry.cap_s, POLICY.retry.base_s * 2 ** (retries - 1))
        assert shortest <= run_at - self.now + 1e-6
        assert run_at - self.now <= POLICY.retry.cap_s + 1e-6
        return run_at

    def _granted(self, worker: str, job_ids: list[str]) -> object:
        given = [(worker, job_id, self.queue.job(job_id).attempt) for job_id in job_ids]
        self.leases.update((job_id, attempt) for _, job_id, attempt in given)
        return multiple(*given)

    # --- what must always hold ---

    @invariant()
    def every_job_is_in_exactly_one_state_and_it_is_the_models(self) -> None:
        stored = self.queue.journal.jobs(self.model.jobs)
        for job in self.model.jobs.values():
            assert (stored[job.id].state or "queued") == job.state
            assert self.queue.is_live(job.id) == (job.state not in TERMINAL)
            if self.queue.is_live(job.id):
                live = self.queue.job(job.id)
                assert (live.state, live.attempt, live.retries) == (job.state, job.attempt, job.retries)
                assert (live.crashes, live.blamed, live.lane.company) == (job.crashes, job.blamed, job.company)

    @invariant()
    def every_attempt_was_leased_once_and_to_one_worker(self) -> None:
        assert not [attempt for attempt, count in self.leases.items() if count > 1]
        holders = Counter(job_id for worker in self.queue.engine.core.leases for job_id in worker.held)
        assert holders == Counter(job.id for job in self.model.of("processing", "cancelling"))

    @invariant()
    def every_job_ended_at_most_once_and_has_one_result_at_most(self) -> None:
        assert all(job.ends <= 1 for job in self.model.jobs.values())
        assert sum(self.queue.ended.values()) == sum(job.ends for job in self.model.jobs.values())
        assert self.queue.ended == {
            state.value: count for state in TERMINAL if (count := len(self.model.of(state.value)))
        }
        for job_id, stored in self.queue.journal.jobs(self.model.jobs).items():
            done = self.model.jobs[job_id].state == "completed"
            assert stored.result == (b'{"by":%d}' % self.model.jobs[job_id].attempt if done else b"")

    @invariant()
    def attempts_are_bounded(self) -> None:
        for job in self.model.jobs.values():
            assert job.retries <= job.header.max_retries
            assert job.blamed <= POLICY.retry.max_crashes
            # Those that say nothing, those of four slots in company (4, 2 or 3, then alone), and those alone.
            assert job.crashes <= POLICY.retry.max_crashes + 2 + POLICY.retry.max_crashes

    @invariant()
    def a_suspect_runs_in_no_more_company_than_it_may_and_beside_suspects_only(self) -> None:
        for worker in self.queue.engine.core.leases:
            allowed = [job.lane.company for job in worker.held.values()]
            assert not any(allowed) or min(allowed) >= len(allowed)

    @invariant()
    def counters_and_indexes_equal_a_recount(self) -> None:
        core, live = self.queue.engine.core, self.queue.engine.core.live
        assert core.counters.accepted == len(self.model.jobs)
        assert core.counters.stale_outcomes == self.model.stale
        assert core.counters.next_seq == len(self.model.jobs) + 1
        recount = Counter((job.lane, job.level) for job in live.values() if job.state is JobState.QUEUED)
        shown = {(lane.key, level): n for lane in core.lanes for level, n in enumerate(lane.queued) if n}
        assert shown == recount
        in_lanes = Counter(job.id for lane in core.lanes for job in lane.in_order())
        assert in_lanes == Counter(job.id for job in live.values() if job.state is JobState.QUEUED)
        in_heap = Counter(job.id for job in core.due.jobs())
        assert in_heap == Counter(job.id for job in live.values() if job.state is JobState.SCHEDULED)
        assert core.open_batches == Counter(job.batch_id for job in live.values() if job.batch_id)

    @invariant()
    def events_are_numbered_without_a_gap_and_tell_legal_lives(self) -> None:
        events = self.queue.events
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        for job_id, life in per_job(events).items():
            assert life[0].name == "job:submitted"
            assert self.model.jobs[job_id].ends == sum(event.status in TERMINAL for event in life)
            attempts = [event.attempt for event in life if event.name == "job:processing"]
            assert attempts == list(range(1, len(attempts) + 1))

    @invariant()
    def a_restart_after_this_commit_gives_the_same_queue(self) -> None:
        with self.queue.journal.recover() as found:
            engine = QueueEngine.load(POLICY, **found._asdict(), now=self.now)
        assert engine.fingerprint() == self.queue.engine.fingerprint()


class SqliteMachine(QueueMachine):
    """The same on a real file."""

    def make_journal(self) -> SqliteJournal:
        """Return a journal in a folder of its own."""
        self.folder = tempfile.TemporaryDirectory()
        return SqliteJournal(Path(self.folder.name) / "journal.db", durability="off")

    def teardown(self) -> None:
        """Remove the folder."""
        self.queue.journal.close()
        self.folder.cleanup()


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40)
TestQueueOnSqlite = SqliteMachine.TestCase
TestQueueOnSqlite.settings = settings(max_examples=12, stateful_step_count=25)
