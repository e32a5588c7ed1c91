"""What becomes of a job whose attempt failed, or whose worker was lost."""

from __future__ import annotations

from dataclasses import dataclass

from aiqueue.engine.policy import RetryPolicy
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.protocol import Failure

MAX_ASKED_S = 3_600.0  #: a provider that asks for a longer wait is asked again after this one
_GOLDEN = 0.6180339887498949  # spreads one draw over many jobs: multiples of it, modulo 1, never cluster


@dataclass(frozen=True, slots=True)
class Verdict:
    """The job's next state; ``run_at`` where it is SCHEDULED."""

    state: JobState
    run_at: float = 0.0


def backoff_s(failures: int, policy: RetryPolicy, *, draw: float) -> float:
    """Return the wait in seconds after ``failures`` failed attempts; ``draw`` is a random number in [0, 1).

    >>> backoff_s(3, RetryPolicy(base_s=1.0, jitter=0.1), draw=0.5)
    4.2
    """
    if failures < 1:
        raise ValueError(f"failures must be 1 or more, got {failures}")
    wait = policy.base_s * 2.0 ** min(failures - 1, 30)  # 2.0**1024 would overflow
    return min(policy.cap_s, wait * (1 + policy.jitter * draw))


def after_failure(job: JobRecord, failure: Failure, policy: RetryPolicy, *, now: float, draw: float) -> Verdict:
    """Return what follows a failed attempt; a retry is yet to be counted in ``job.retries``."""
    if not failure.retryable:
        return Verdict(JobState.FAILED)
    if job.retries >= job.max_retries:
        return _given_up(policy)
    own_draw = (draw + job.seq * _GOLDEN) % 1.0
    asked = min(failure.retry_after_s or 0.0, MAX_ASKED_S)
    wait = max(backoff_s(job.retries + 1, policy, draw=own_draw), asked)
    return Verdict(JobState.SCHEDULED, run_at=now + wait)


def after_crash(job: JobRecord, policy: RetryPolicy) -> Verdict:
    """Return what follows the lost worker just counted in ``job.blamed``: its old place, or its end."""
    return _given_up(policy) if job.blamed >= policy.max_crashes else Verdict(JobState.QUEUED)


def _given_up(policy: RetryPolicy) -> Verdict:
    return Verdict(JobState.DEAD_LETTER if policy.dead_letters else JobState.FAILED)
