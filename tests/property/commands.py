"""Random sequences of commands, and a plain model of what they must lead to."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from aiqueue.engine.policy import EnginePolicy, GatePolicy, RetryPolicy, Route
from aiqueue.levels import LEVELS
from aiqueue.protocol import Event, Failure, JobHeader, Outcome
from aiqueue.testing.jobs import final, retryable

POLICY = EnginePolicy(
    routes={"sim": Route("pool", "KEY"), "other": Route("pool"), "far": Route("far-pool")},
    lease_s=90.0,
    retry=RetryPolicy(base_s=1.0, cap_s=8.0, jitter=0.5, max_crashes=2),
    # The model knows neither: gates that never close, and levels that stay what they are.
    gates=dict.fromkeys(
        ("sim", "other", "far"), GatePolicy(adaptive=False, breaker_failures=1_000_000, breaker_window=1_000_000)
    ),
    ageing=0.0,
)
POOLS = {"w1": "pool", "w2": "pool", "far": "far-pool"}
LANES = [("sim", "m1"), ("sim", "m2"), ("other", "m1"), ("far", "m1")]

HELD = ("processing", "cancelling")

workers = st.sampled_from(sorted(POOLS))
kinds = st.sampled_from(["completed", "retry", "final", "cancelled"])
draws = st.floats(0, 1, exclude_max=True)
steps_s = st.sampled_from([0.0, 0.5, 2.0, 8.0, 60.0, 89.0, 90.0, 200.0])


@st.composite
def headers(draw: st.DrawFn) -> JobHeader:
    """Return what a client says of a job."""
    provider, model = draw(st.sampled_from(LANES))
    return JobHeader(
        "chat_completion",
        provider,
        model,
        draw(st.integers(0, len(LEVELS) - 1)),
        draw(st.sampled_from(["client-a", "client-b"])),
        draw(st.integers(0, 2)),
        batch_id=draw(st.sampled_from(["", "", "batch-1", "batch-2"])),
        delay_ms=draw(st.sampled_from([0, 0, 0, 2_000, 60_000])),
        expires_in_ms=draw(st.sampled_from([0, 0, 0, 500, 8_000])),
    )


def outcome(kind: str, job_id: str, attempt: int) -> Outcome:
    """Return a worker's report of one kind."""
    failures: dict[str, Failure] = {"retry": retryable(), "final": final()}
    if kind == "completed":
        return Outcome(job_id, attempt, f'{{"by":{attempt}}}'.encode())
    return Outcome(job_id, attempt, failure=failures.get(kind), cancelled=kind == "cancelled")


@dataclass
class Job:
    """What the model remembers of one job: only what users could see."""

    id: str
    seq: int
    header: JobHeader
    since: float  #: when it was to be ready
    state: str = "queued"
    attempt: int = 0
    retries: int = 0
    crashes: int = 0
    blamed: int = 0
    company: int = 0
    holder: str = ""
    run_at: float = 0.0
    expires_at: float = 0.0  #: 0: never, or not any more, since it was started
    ends: int = 0


def rank(job: Job) -> tuple[int, float, int]:
    """Return what jobs are ordered by."""
    return job.header.level, job.since, job.seq


@dataclass
class Model:
    """Jobs in a dict, searched from end to end for every question. Slow, and plainly right."""

    jobs: dict[str, Job] = field(default_factory=dict)
    stale: int = 0
    heard: dict[str, float] = field(default_factory=dict)  #: worker -> when
    slots: dict[str, int] = field(default_factory=dict)  #: worker -> how many it said last
    chosen: dict[str, str] = field(default_factory=dict)  #: pool -> worker for suspects

    def of(self, *states: str) -> list[Job]:
        """Return the jobs in these states."""
        return [job for job in self.jobs.values() if job.state in states]

    def held(self, worker: str) -> list[Job]:
        """Return what a worker holds."""
        return [job for job in self.of(*HELD) if job.holder == worker]

    def submit(self, header: JobHeader, *, now: float) -> Job:
        """Accept a job."""
        number = len(self.jobs) + 1
        job = self.jobs[f"job-{number}"] = Job(f"job-{number}", number, header, since=now)
        if header.delay_ms:
            job.state, job.run_at = "scheduled", now + header.delay_ms / 1e3
            job.since = job.run_at
        if header.expires_in_ms:
            job.expires_at = now + header.expires_in_ms / 1e3
        return job

    def expire(self, now: float) -> None:
        """End what was to be started by now."""
        for job in self.of("queued", "scheduled"):
            if job.expires_at and job.expires_at <= now:
                self._end(job, "expired")

    def report(self, worker: str, report: Outcome, *, now: float) -> None:
        """Take an outcome, or refuse it."""
        job = self.jobs.get(report.job_id)
        if job is None or job not in self.held(worker) or job.attempt != report.attempt:
            self.stale += 1
        elif report.failure is None and not report.cancelled:
            self._end(job, "completed")
        elif job.state == "cancelling":
            self._end(job, "cancelled")
        elif report.failure is None:
            job.state = "queued"
        else:
            if not report.failure.retryable:
                self._end(job, "failed")
            elif job.retries >= job.header.max_retries:
                self._end(job, "dead_letter")
            else:
                job.state, job.retries, job.company = "scheduled", job.retries + 1, 0

    def best(self, pool: str, *, company: int = 0) -> Job | None:
        """Return the job that a worker of ``pool`` must be given next: level, then who is ready since when.

        ``company``: of the suspects that may run with so many; 0: of those that are none.
        """
        ready = [job for job in self.of("queued") if POLICY.routes[job.header.provider].pool == pool]
        may = [job for job in ready if (job.company >= company if company else not job.company)]
        return min(may, key=rank, default=None)

    def claim(self, worker: str, slots: int, *, now: float) -> list[str]:
        """Give ``worker`` what it has room for; return the ids in order."""
        self.expire(now)
        self.slots[worker] = slots
        if self._takes_ordinary_jobs(worker):
            taken = []
            while len(self.held(worker)) < slots and (job := self.best(POOLS[worker])):
                taken.append(self._start(job, worker))
            return taken
        return [] if self.held(worker) else self._take_suspects(worker)

    def _takes_ordinary_jobs(self, worker: str) -> bool:
        """Choose a worker for suspects if there are any; tell whether this one goes on as ever."""
        pool, runs_suspects = POOLS[worker], {job.holder for job in self.of(*HELD) if job.company}
        chosen = self.chosen.pop(pool, "")
        if chosen not in self.heard or not self.slots.get(chosen):
            chosen = ""
        elif self.slots[worker] and not self.held(worker) and self.held(chosen) and chosen not in runs_suspects:
            chosen = worker
        there = [each for each in self.heard if POOLS[each] == pool and self.slots.get(each)]
        if not chosen and there and self._suspects_are_next(pool):
            chosen = min(there, key=lambda each: len(self.held(each)))
        if chosen == worker and not self.held(worker) and not self._suspects_are_next(pool):
            chosen = ""
        if chosen:
            self.chosen[pool] = chosen
        return worker != chosen and worker not in runs_suspects

    def _suspects_are_next(self, pool: str) -> bool:
        suspect, other = self.best(pool, company=1), self.best(pool)
        return suspect is not None and (other is None or rank(suspect) < rank(other))

    def _take_suspects(self, worker: str) -> list[str]:
        taken, most = list[str](), self.slots[worker]
        while len(taken) < most and (job := self.best(POOLS[worker], company=len(taken) + 1)):
            taken.append(self._start(job, worker))
            most = min(most, job.company)
        return taken

    def _start(self, job: Job, worker: str) -> str:
        job.state, job.holder, job.expires_at = "processing", worker, 0.0
        job.attempt += 1
        return job.id

    def restarted(self, *, now: float) -> None:
        """Forget the workers that hold nothing; the leases of the others begin anew."""
        held = self.of(*HELD)
        self.heard, self.slots = {job.holder: now for job in held}, {}
        self.chosen = {POOLS[job.holder]: job.holder for job in held if job.company}

    def cancel(self, job_id: str) -> str:
        """Cancel a job; return its state, empty if it is not live."""
        job = self.jobs.get(job_id)
        if job is None or job.ends:
            return ""
        if job.state in ("queued", "scheduled"):
            self._end(job, "cancelled")
        else:
            job.state = "cancelling"
        return job.state

    def lose(self, worker: str, *, crashed: bool) -> int:
        """Take back what a worker held."""
        self.heard.pop(worker, None)
        self.slots.pop(worker, None)
        lost = self.held(worker)
        for job in lost:
            job.crashes += 1
            if crashed or job.crashes > POLICY.retry.max_crashes:
                job.blamed += len(lost) == 1
                job.company = max(1, len(lost) // 2)
            if job.state == "cancelling":
                self._end(job, "cancelled")
            elif job.blamed >= POLICY.retry.max_crashes:
                self._end(job, "dead_letter")
            else:
                job.state = "queued"
        return len(lost)

    def tick(self, now: float) -> None:
        """Let time do its part."""
        self.expire(now)
        for job in self.of("scheduled"):
            if job.run_at <= now:
                job.state = "queued"
        for worker in [worker for worker, at in self.heard.items() if at + POLICY.lease_s <= now]:
            self.lose(worker, crashed=False)

    def _end(self, job: Job, state: str) -> None:
        job.state, job.ends = state, job.ends + 1


def per_job(events: list[Event]) -> dict[str, list[Event]]:
    """Return events by job, in order."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.job_id, []).append(event)
    return found
