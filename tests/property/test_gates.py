"""Random commands against gates that close, limits, ageing and jobs that do not wait: what must hold at every step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from msgspec import structs

from aiqueue.engine import QueueEngine
from aiqueue.engine.core import HELD
from aiqueue.engine.due import WAITING
from aiqueue.engine.policy import GatePolicy
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.errors import QueueFull
from aiqueue.protocol import Failure, JobHeader, Outcome, Submission, SubmitGroup
from aiqueue.testing.jobs import final
from tests.property.commands import POLICY as QUIET
from tests.property.commands import POOLS, headers, steps_s, workers
from tests.tools.queue_harness import QueueHarness

MAX_DEPTH, MAX_LOW = 14, 5
POLICY = replace(
    QUIET,
    retry=replace(QUIET.retry, max_refusals=2),
    gates={
        "sim": GatePolicy(max_concurrent=3, breaker_failures=2, breaker_open_s=30.0),
        "other": GatePolicy(requests_per_minute=4.0, breaker_window=4, breaker_ratio=0.5),
        "far": GatePolicy(tokens_per_minute=100.0, breaker_failures=1, breaker_open_s=1.0),
    },
    ageing=1.0,
    max_depth=MAX_DEPTH,
    max_level_depth=(None, None, None, MAX_LOW),
)
ENDS: dict[str, Failure | None] = {
    "completed": None,
    "cancelled": None,
    "final": final(),
    "refused": Failure("rate_limited", "429", True, 429),
    "refused for a while": Failure("rate_limited", "429", True, 429, 8.0),
    "overloaded": Failure("provider_server_error", "529", True, 529),
    "overloaded for a while": Failure("provider_server_error", "503", True, 503, 8.0),
    "broken": Failure("provider_connection", "reset", True),
    "nothing said": Failure("worker_fault", "KeyError"),
    "too late": Failure("timeout", "no answer", True),
}
Attempt = tuple[str, str, int]  #: worker, job, number


@st.composite
def wanted(draw: st.DrawFn) -> JobHeader:
    """Return a header that may also ask not to wait; few gates, so that many jobs meet at one."""
    provider = draw(st.sampled_from(["sim", "sim", "sim", "other", "far"]))
    return structs.replace(draw(headers()), provider=provider, model="m1", fail_fast=draw(st.booleans()))


class GatedMachine(RuleBasedStateMachine):
    """No model tells what must come; the invariants say what may not."""

    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.queue = QueueHarness(POLICY)
        self.submitted = 0

    @property
    def now(self) -> float:
        """The time of the queue."""
        return self.queue.clock.now()

    def is_closed(self, job: JobRecord) -> bool:
        """Tell whether the job's gate is closed."""
        return self.now < self.queue.engine.core.gates.of(job.lane, now=self.now).closed_until

    # --- commands ---

    @rule(target=jobs, group=st.lists(wanted(), min_size=1, max_size=6))
    def submit(self, group: list[JobHeader]) -> object:
        core = self.queue.engine.core
        before, waiting = self.queue.engine.fingerprint(), list(core.waiting)
        names = [f"job-{self.submitted + number}" for number in range(len(group))]
        jobs = [Submission(name, header, b"p") for name, header in zip(names, group, strict=True)]
        (refusal,) = self.queue.submit_groups(SubmitGroup(jobs))
        low = sum(header.level == 3 for header in group)
        fits = sum(waiting) + len(group) <= MAX_DEPTH and (not low or waiting[3] + low <= MAX_LOW)
        assert (refusal is None) == fits
        if refusal is not None:
            assert refusal.kind == QueueFull.kind
            assert self.queue.engine.fingerprint() == before
            return multiple()
        self.submitted += len(group)
        return multiple(*names)

    @rule(target=attempts, worker=workers, slots=st.integers(0, 6))
    def ask(self, worker: str, slots: int) -> object:
        return self._exchange(worker, slots)

    @rule(
        target=attempts,
        ended=consumes(attempts),
        end=st.sampled_from(sorted(ENDS)),
        slots=st.integers(0, 6),
        tokens=st.sampled_from([0, 10, 150]),
        later_s=st.sampled_from([0.0, 0.5]),
    )
    def report(self, ended: Attempt, end: str, slots: int, tokens: int, later_s: float) -> object:
        self.queue.clock.advance(later_s)
        worker, job_id, attempt = ended
        outcome = Outcome(job_id, attempt, b"{}", failure=ENDS[end], cancelled=end == "cancelled", tokens=tokens)
        owed = {gate.key for gate in self.queue.engine.core.gates if gate.probing}
        granted = self._exchange(worker, slots, outcome)
        if end in ("nothing said", "cancelled"):
            assert owed == {gate.key for gate in self.queue.engine.core.gates if gate.probing}
        return granted

    @rule(target=attempts, ended=consumes(attempts), seconds=st.sampled_from([0.5, 2.0, 8.0, 60.0]))
    def refuse_and_wait(self, ended: Attempt, seconds: float) -> object:
        granted = self.report(ended, "refused for a while", 6, 0, 0.5)
        self.let_time_pass(seconds)
        return granted

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        self.queue.cancel(job)

    @rule(worker=workers)
    def lose(self, worker: str) -> None:
        self.queue.lose(worker)

    @rule(seconds=steps_s)
    def let_time_pass(self, seconds: float) -> None:
        self.queue.tick(seconds)
        live = self.queue.engine.core.live.values()
        assert all(at > self.now for at in self.queue.engine.core.deadlines.times().values())
        assert not [job.id for job in live if job.state is JobState.SCHEDULED and job.run_at <= self.now]
        assert not [gate.key for gate in self.queue.engine.core.gates if 0.0 < gate.closed_until <= self.now]

    @rule()
    def wait_for_what_comes_next(self) -> None:
        due = self.queue.engine.next_due(now=self.now)
        if due is not None:
            self.let_time_pass(max(0.0, due - self.now))

    @rule()
    def restart(self) -> None:
        before = self.queue.engine.fingerprint()
        self.queue.restart()
        assert self.queue.engine.fingerprint() == before

    def _exchange(self, worker: str, slots: int, *outcomes: Outcome) -> object:
        expired = {job_id for job_id, at in self.queue.engine.core.deadlines.times().items() if at <= self.now}
        granted = self.queue.exchange(*outcomes, worker=worker, pool=POOLS[worker], slots=slots).claims
        assert not [job.id for job in granted if self.is_closed(job)], "a closed gate grants nothing"
        assert not expired.intersection(job.id for job in granted)
        for gate in self.queue.engine.core.gates:
            through = sum(self.queue.engine.core.gates.of(job.lane, now=self.now) is gate for job in granted)
            limits = [limit for limit in (POLICY.gates[gate.key.provider].max_concurrent, gate.limit) if limit]
            assert not through or all(gate.in_flight <= limit for limit in limits)
            assert not gate.probing or through <= 1
        return multiple(*((worker, job.id, job.attempt) for job in granted))

    # --- what must always hold ---

    @invariant()
    def the_calls_of_a_gate_are_the_leases_through_it(self) -> None:
        core = self.queue.engine.core
        leases = Counter(core.gates.of(job.lane, now=self.now).key for job in core.live.values() if job.state in HELD)
        assert {gate.key: gate.in_flight for gate in core.gates if gate.in_flight} == leases

    @invariant()
    def counters_equal_a_recount(self) -> None:
        core = self.queue.engine.core
        waiting = Counter(job.level for job in core.live.values() if job.state in WAITING)
        assert core.waiting == [waiting[level] for level in range(4)]
        assert core.counters.accepted == self.submitted
        assert len(core.live) + sum(self.queue.ended.values()) == self.submitted
        ready = Counter(job.id for lane in core.lanes for job in lane.in_order())
        assert ready == Counter(job.id for job in core.live.values() if job.state is JobState.QUEUED)

    @invariant()
    def what_is_kept_beside_the_records_belongs_to_live_jobs(self) -> None:
        core = self.queue.engine.core
        assert set(core.fail_fast) <= core.live.keys()
        assert core.refusals.keys() <= core.live.keys()
        assert all(count <= POLICY.retry.max_refusals for count in core.refusals.values())
        assert all(core.live[job_id].attempt == 0 for job_id in core.deadlines.times())

    @invariant()
    def nobody_waits_at_a_closed_gate_who_was_not_to(self) -> None:
        core = self.queue.engine.core
        hasty = [core.live[job_id] for job_id in core.fail_fast]
        assert not [job.id for job in hasty if job.state is JobState.QUEUED and self.is_closed(job)]

    @invariant()
    def a_gates_events_tell_where_it_stands(self) -> None:
        last = {event.gate: event.until for event in self.queue.events if event.gate}
        gates = {str(gate.key): gate.closed_until for gate in self.queue.engine.core.gates}
        assert {gate: until for gate, until in gates.items() if until} == {
            g: until for g, until in last.items() if until
        }
        assert [event.number for event in self.queue.events] == list(range(1, len(self.queue.events) + 1))

    @invariant()
    def a_restart_after_this_commit_gives_the_same_queue(self) -> None:
        with self.queue.journal.recover() as found:
            engine = QueueEngine.load(POLICY, **found._asdict(), now=self.now)
        assert engine.fingerprint() == self.queue.engine.fingerprint()


TestGates = GatedMachine.TestCase
TestGates.settings = settings(max_examples=200, stateful_step_count=50)
