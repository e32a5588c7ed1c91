"""Backoff, in numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.engine.core import Core
from aiqueue.engine.counters import Counters
from aiqueue.engine.policy import EnginePolicy, RetryPolicy
from aiqueue.engine.records import JobRecord
from aiqueue.engine.retry import Verdict, after_crash, after_failure, backoff_s
from aiqueue.engine.states import JobState
from aiqueue.testing.jobs import failed, final, header, retryable
from tests.tools.queue_harness import POLICY, QueueHarness

PLAIN = RetryPolicy(base_s=1.0, cap_s=30.0, jitter=0.1)


def job(*, retries: int = 0, blamed: int = 0, max_retries: int = 3, seq: int = 1) -> JobRecord:
    record = Core(POLICY, Counters()).record(seq, "a", header(max_retries=max_retries))
    record.retries, record.blamed = retries, blamed
    return record


@pytest.mark.parametrize(
    ("failures", "wait"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 16.0), (6, 30.0), (40, 30.0), (10_000, 30.0)]
)
def test_the_wait_doubles_up_to_the_cap(failures: int, wait: float) -> None:
    assert backoff_s(failures, PLAIN, draw=0.0) == wait


def test_the_draw_adds_up_to_the_jitter_and_never_passes_the_cap() -> None:
    assert backoff_s(1, PLAIN, draw=0.5) == pytest.approx(1.05)
    assert backoff_s(5, PLAIN, draw=0.999) < 16.0 * 1.1
    assert backoff_s(6, PLAIN, draw=0.999) == 30.0


@pytest.mark.parametrize("failures", [0, -1])
def test_no_failure_has_no_backoff(failures: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        backoff_s(failures, PLAIN, draw=0.0)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 10), st.floats(0, 100), st.floats(0, 1))
def test_a_wait_is_within_its_bounds_whatever_the_policy(
    failures: int, draw: float, base: float, cap: float, jitter: float
) -> None:
    wait = backoff_s(failures, RetryPolicy(base_s=base, cap_s=cap, jitter=jitter), draw=draw)
    assert min(cap, base) <= wait <= cap


def test_a_failure_below_the_limit_waits_for_its_backoff() -> None:
    verdict = after_failure(job(seq=0), retryable(), PLAIN, now=100.0, draw=0.5)
    assert verdict == Verdict(JobState.SCHEDULED, run_at=pytest.approx(101.05))


@pytest.mark.parametrize(("retries", "state"), [(2, JobState.SCHEDULED), (3, JobState.DEAD_LETTER)])
def test_the_last_retry_is_the_one_that_max_retries_names(retries: int, state: JobState) -> None:
    assert after_failure(job(retries=retries), retryable(), PLAIN, now=0.0, draw=0.0).state is state


def test_a_final_failure_is_not_retried() -> None:
    assert after_failure(job(), final(), PLAIN, now=0.0, draw=0.0).state is JobState.FAILED


@pytest.mark.parametrize(("asked", "run_at"), [(12.0, 112.0), (0.2, 101.0), (0.0, 101.0), (-5.0, 101.0), (None, 101.0)])
def test_a_retry_waits_as_long_as_the_provider_asked_and_never_less_than_its_backoff(
    asked: float | None, run_at: float
) -> None:
    failure = retryable(retry_after_s=asked)
    verdict = after_failure(job(seq=0), failure, PLAIN, now=100.0, draw=0.0)
    assert verdict.run_at == run_at


def test_jobs_that_fail_together_do_not_come_back_together(queue: QueueHarness) -> None:
    policy = EnginePolicy(routes=POLICY.routes, retry=RetryPolicy(base_s=10.0, cap_s=60.0, jitter=1.0))
    queue = QueueHarness(policy)
    names = [f"job-{number}" for number in range(50)]
    queue.submit(*names)
    queue.claim(50)
    queue.exchange(*map(failed, names), slots=0, draw=0.25)
    times = sorted(queue.job(name).run_at - queue.clock.now() for name in names)
    assert times[0] >= 10.0
    assert times[-1] <= 20.0
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) < 1.0, "they came in clusters"
    assert len(set(times)) == 50


@pytest.mark.parametrize(("blamed", "state"), [(1, JobState.QUEUED), (2, JobState.QUEUED), (3, JobState.DEAD_LETTER)])
def test_the_third_worker_lost_to_it_alone_ends_a_job(blamed: int, state: JobState) -> None:
    assert after_crash(job(blamed=blamed), PLAIN).state is state


@pytest.mark.parametrize("reason", ["out of retries", "poison"])
def test_without_dead_letters_a_job_that_is_given_up_has_merely_failed(reason: str) -> None:
    queue = QueueHarness(replace(POLICY, retry=replace(POLICY.retry, dead_letters=False, max_crashes=2)))
    queue.submit("a", max_retries=0)
    queue.claim()
    if reason == "poison":
        queue.lose()
        queue.claim()
        queue.lose()
    else:
        queue.exchange(failed("a"), slots=0)
    assert (queue.state_of("a"), queue.ended) == ("failed", {"failed": 1})
    assert queue.names("a")[-1] == "failed"
    assert queue.events[-1].failure is not None
    assert queue.events[-1].failure.kind == ("poison_job" if reason == "poison" else "provider_server_error")
