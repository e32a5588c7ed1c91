"""An engine with its journal and its clock, so that a test says what happens and not how it is written down."""

from __future__ import annotations

from msgspec.structs import replace

from aiqueue.engine import (
    Cancel,
    Claim,
    Effects,
    EnginePolicy,
    Exchange,
    GatePolicy,
    LoseWorker,
    QueueEngine,
    RetryPolicy,
    Route,
    Submit,
    Tick,
)
from aiqueue.engine.commands import Command
from aiqueue.engine.effects import Granted
from aiqueue.engine.records import AttemptRecord, JobRecord, decode_attempt
from aiqueue.journal.base import Journal
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import CancelReply, Event, Outcome, Refusal, Submission, SubmitGroup
from aiqueue.testing.jobs import MODEL, POOL, PROVIDER, group, header, submission
from aiqueue.testing.manual_clock import ManualClock
from aiqueue.testing.memory_journal import MemoryJournal

POLICY = EnginePolicy(
    routes={PROVIDER: Route(POOL, "KEY"), "other": Route("other-pool")},
    lease_s=90.0,
    retry=RetryPolicy(base_s=1.0, cap_s=30.0, jitter=0.0, max_crashes=3),
    # Out of the way; those who test gates and ageing turn them on.
    gates=dict.fromkeys(
        (PROVIDER, "other"), GatePolicy(adaptive=False, breaker_failures=1_000_000, breaker_window=1_000_000)
    ),
    ageing=0.0,
)
WORKER = "worker-1"


class QueueHarness:
    """Every command is committed at once, and every event kept."""

    def __init__(self, policy: EnginePolicy = POLICY, journal: Journal | None = None) -> None:
        self.policy = policy
        self.journal: Journal = journal or MemoryJournal()
        self.clock = ManualClock()
        self.events: list[Event] = []
        self.engine = self._load()

    def _load(self) -> QueueEngine:
        with self.journal.recover() as found:
            return QueueEngine.load(self.policy, **found._asdict(), now=self.clock.now())

    def restart(self) -> None:
        """Forget everything but what is on disk."""
        self.engine = self._load()

    def do(self, command: Command) -> Effects:
        """Carry out a command and commit what came of it."""
        effects = self.engine.handle(command, now=self.clock.now())
        if effects.rows:
            self.journal.commit(effects.rows)
        self.events += effects.events
        return effects

    def submit(
        self, *ids: str, level: AIJobPriority = AIJobPriority.MEDIUM, model: str = MODEL, **fields: object
    ) -> list[Refusal | None]:
        """Submit jobs by id, one group."""
        jobs = [submission(job_id, replace(header(level, model=model), **fields)) for job_id in ids]
        return self.submit_groups(group(*jobs))

    def submit_groups(self, *groups: SubmitGroup, journaled: dict[str, bool] | None = None) -> list[Refusal | None]:
        """Submit whole groups."""
        return list(self.do(Submit(groups, journaled or {})).reply)

    def submit_one(self, job: Submission) -> Refusal | None:
        """Submit one job."""
        return self.submit_groups(group(job))[0]

    def exchange(
        self,
        *outcomes: Outcome,
        worker: str = WORKER,
        slots: int = 10,
        pool: str = POOL,
        running: list[tuple[str, int]] | None = None,
        draw: float = 0.0,
        most: int = 0,
    ) -> Granted:
        """Let a worker report and ask for work."""
        granted = self.do(Exchange(worker, pool, slots, outcomes, running, draw, most=most)).reply
        assert isinstance(granted, Granted)
        return granted

    def claim(self, count: int = 1, *, worker: str = WORKER, pool: str = POOL) -> list[str]:
        """Let a worker take up to ``count`` more jobs; return their ids."""
        held = sum(len(each.held) for each in self.engine.core.leases if each.id == worker)
        return ids(self.exchange(worker=worker, slots=held + count, pool=pool).claims)

    def claim_waiting(self, most: int, *, worker: str = WORKER) -> list[str]:
        """Give a worker that waits up to ``most`` jobs; return their ids."""
        return ids(self.do(Claim(worker, most)).reply.claims)

    def cancel(self, job_id: str) -> CancelReply:
        """Cancel a job."""
        (reply,) = self.do(Cancel([job_id])).reply
        assert isinstance(reply, CancelReply)
        return reply

    def lose(self, worker: str = WORKER, *, crashed: bool = True) -> int:
        """Tell the queue that a worker is dead, its process or its whole machine; return how many jobs it held."""
        return int(self.do(LoseWorker(worker, "killed" if crashed else "its node died", crashed)).reply)

    def tick(self, after_s: float = 0.0) -> None:
        """Let time pass."""
        self.clock.advance(after_s)
        self.do(Tick())

    def go_on(self) -> int:
        """Let the queue finish what it has begun, as it does by itself; return how many turns that took."""
        turns = 0
        while self.engine.core.pending:
            self.tick()
            turns += 1
        return turns

    def job(self, job_id: str) -> JobRecord:
        """Return a live job's record."""
        return self.engine.core.live[job_id]

    def is_live(self, job_id: str) -> bool:
        """Tell whether the job has not ended."""
        return self.engine.knows(job_id)

    def state_of(self, job_id: str) -> str:
        """Return a job's state as the journal has it."""
        stored = self.journal.jobs([job_id])
        return (stored[job_id].state or "queued") if stored else ""

    def gate_events(self) -> list[tuple[str, float]]:
        """Return the gates' events: closed with when it opens, opened with 0."""
        return [(event.name, event.until) for event in self.events if event.name.startswith("gate:")]

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """Return the attempts of a job that were not its last one."""
        seq = self.journal.jobs([job_id])[job_id].seq
        return [decode_attempt(body) for body in self.journal.attempts([seq]).get(seq, [])]

    def names(self, job_id: str) -> list[str]:
        """Return the names of a job's events, in order."""
        return [event.name.removeprefix("job:") for event in self.events if event.job_id == job_id]

    @property
    def ended(self) -> dict[str, int]:
        """Count of ends, by state."""
        return self.engine.core.counters.ended


def ids(jobs: list[JobRecord]) -> list[str]:
    """Return the ids of claimed jobs."""
    return [job.id for job in jobs]
