"""The circuit breaker of a gate, and the call that probes whether the provider is back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiqueue.errors import (
    AuthenticationFailed,
    InvalidRequest,
    JobError,
    JobTimeout,
    ModelUnavailable,
    OutOfMemory,
    ResultTooLarge,
    TemplateFailed,
    WorkerFault,
)
from aiqueue.testing.jobs import cancelled, completed, failed, final, retryable
from tests.tools.gated_queue import CLOSED, OPENED, gated, policy, refused, run
from tests.tools.queue_harness import POLICY, QueueHarness


def test_failures_in_a_row_open_the_breaker() -> None:
    queue = gated(breaker_failures=3, breaker_open_s=30.0)
    for number, name in enumerate(run(queue, 3), start=1):
        assert queue.gate_events() == []
        queue.exchange(failed(name, failure=retryable("Provider sim: 500")), slots=0)
        assert bool(queue.gate_events()) == (number == 3)
    assert queue.gate_events() == [(CLOSED, queue.clock.now() + 30.0)]
    assert queue.events[-2].reason == "circuit breaker open: Provider sim: 500"


def test_an_answer_between_failures_starts_the_row_anew() -> None:
    queue = gated(breaker_failures=2)
    first, second, third = run(queue, 3)
    queue.exchange(failed(first), completed(second), failed(third), slots=0)
    assert queue.gate_events() == []


def test_most_of_the_last_calls_failing_opens_the_breaker_but_not_before_the_window_is_full() -> None:
    queue = gated(breaker_window=4, breaker_ratio=0.5)
    a, b, c, d = run(queue, 4)
    queue.exchange(failed(a), completed(b), failed(c), slots=0)
    assert queue.gate_events() == []
    queue.exchange(completed(d), slots=0)
    assert queue.gate_events() == []  # the last call succeeded; the next failure decides
    (e,) = run(queue, 1)
    queue.exchange(failed(e), slots=0)
    assert [name for name, _ in queue.gate_events()] == [CLOSED]


@pytest.mark.parametrize("answer", ["completed", "refused for good"])
def test_after_its_time_one_probe_goes_through_and_an_answer_opens_the_gate(answer: str) -> None:
    queue = gated(breaker_failures=1, breaker_open_s=30.0)
    (broken,) = run(queue, 1)
    queue.submit("a", "b", "c")
    queue.exchange(failed(broken), slots=0)
    queue.tick(30.0)
    (probe,) = queue.claim(3)
    assert queue.claim(3) == []
    attempt = queue.job(probe).attempt
    queue.exchange(completed(probe, attempt) if answer == "completed" else failed(probe, attempt, final()), slots=0)
    assert len(queue.claim(3)) == 3 - (probe != broken)
    assert [name for name, _ in queue.gate_events()] == [CLOSED, OPENED, OPENED]
    assert [event.reason for event in queue.events if event.name == OPENED] == ["probing", ""]


def test_an_overload_counts_as_a_failure_though_its_job_is_not_charged_for_it() -> None:
    queue = gated(breaker_failures=2, breaker_open_s=30.0)
    failure = retryable(retry_after_s=1.0)
    queue.exchange(*(failed(name, failure=failure) for name in run(queue, 2)), slots=0)
    assert queue.gate_events() == [(CLOSED, queue.clock.now() + 1.0), (CLOSED, queue.clock.now() + 30.0)]
    assert {job.retries for job in queue.engine.core.live.values()} == {0}


def test_a_probe_that_fails_closes_the_gate_again_for_as_long() -> None:
    queue = gated(breaker_failures=3, breaker_open_s=30.0)
    queue.exchange(*map(failed, run(queue, 3)), slots=0)
    queue.tick(30.0)
    (probe,) = queue.claim(3)
    queue.exchange(failed(probe, 2), slots=0)
    assert queue.gate_events()[-1] == (CLOSED, queue.clock.now() + 30.0)
    assert queue.claim(3) == []
    queue.tick(30.0)
    assert len(queue.claim(3)) == 1


@pytest.mark.parametrize("end", ["lost", "handed back"])
def test_a_probe_that_says_nothing_is_followed_by_another_one(end: str) -> None:
    queue = gated(breaker_failures=1)
    queue.exchange(*map(failed, run(queue, 1)), slots=0)
    queue.submit("a", "b")
    queue.tick(30.0)
    (probe,) = queue.claim(3)
    if end == "lost":
        queue.lose()
    else:
        queue.exchange(cancelled(probe, queue.job(probe).attempt), slots=0)
    assert len(queue.claim(3)) == 1


#: Nobody asked the provider, or it had no time to answer: no status, and no answer.
SAYS_NOTHING = (
    AuthenticationFailed("Provider sim: KEY is not set on this worker"),
    InvalidRequest("Provider sim: type embedding is not supported"),
    JobTimeout("Job timeout: no answer within 0.1 s"),
    ModelUnavailable("Provider sim: no such file"),
    OutOfMemory("Worker ran out of memory"),
    TemplateFailed("Template previous.content: there is no such result"),
    WorkerFault("Worker fault: KeyError"),
)


@pytest.mark.parametrize("error", SAYS_NOTHING, ids=lambda error: error.kind)
def test_what_says_nothing_about_the_provider_neither_ends_a_probe_nor_begins_a_row_anew(error: JobError) -> None:
    queue = gated(breaker_failures=2, breaker_open_s=30.0)
    first, second, third, fourth = run(queue, 4)
    failure = error.to_failure()
    queue.exchange(failed(first), failed(second, failure=failure), failed(third, failure=failure), slots=0)
    assert queue.gate_events() == []
    queue.exchange(failed(fourth), slots=0)
    assert queue.gate_events() == [(CLOSED, queue.clock.now() + 30.0)], "two in a row, whatever came between"
    queue.submit("a", "b", max_retries=0, timeout_ms=100)
    queue.tick(30.0)
    for _ in range(2):
        (probe,) = queue.claim(3)
        queue.exchange(failed(probe, queue.job(probe).attempt, failure), slots=0)
        assert [name for name, _ in queue.gate_events()] == [CLOSED, OPENED]
    (probe,) = queue.claim(3)
    assert queue.claim(3) == [], "the probe is still owed"
    queue.exchange(completed(probe, queue.job(probe).attempt), slots=0)
    assert queue.gate_events()[-1] == (OPENED, 0.0)
    assert queue.events[-1].reason == ""


@pytest.mark.parametrize("error", [ResultTooLarge("the result has 20 bytes"), InvalidRequest("no", status=422)])
def test_an_answer_that_is_no_use_to_its_job_still_shows_that_the_provider_is_there(error: JobError) -> None:
    queue = gated(breaker_failures=1)
    queue.exchange(*map(failed, run(queue, 1)), slots=0)
    queue.tick(30.0)
    (probe,) = queue.claim()
    queue.exchange(failed(probe, 2, error.to_failure()), slots=0)
    assert [event.reason for event in queue.events if event.name == OPENED] == ["probing", ""]


@pytest.mark.parametrize(
    ("timeout_ms", "took_s", "counts"),
    [
        (100, 0.1, False),
        (9_999, 10.1, False),  # the queue heard of it late
        (10_000, 10.0, True),
        (30_000, 30.0, True),
        (30_000, 0.5, False),  # the worker's own limit is shorter than the job's
    ],
)
def test_a_timeout_counts_if_the_provider_had_the_time_to_answer(timeout_ms: int, took_s: float, counts: bool) -> None:
    queue = gated(breaker_failures=5, breaker_timeout_s=10.0)
    hasty = [f"hasty-{number}" for number in range(5)]
    queue.submit(*hasty, timeout_ms=timeout_ms)
    queue.claim(5)
    queue.clock.advance(took_s)
    late = JobTimeout("Job timeout").to_failure()
    queue.exchange(*(failed(name, failure=late) for name in hasty), slots=0)
    assert [name for name, _ in queue.gate_events()] == [CLOSED] * counts


def test_calls_from_before_the_break_neither_prolong_it_nor_end_it_nor_stand_for_the_probe() -> None:
    queue = gated(breaker_failures=1, breaker_open_s=30.0)
    broken, slow, slower, slowest = run(queue, 4)
    queue.exchange(failed(broken), slots=0)
    until = queue.clock.now() + 30.0
    queue.clock.advance(10.0)
    queue.exchange(failed(slow), completed(slower), slots=0)
    assert queue.claim() == []
    assert queue.gate_events() == [(CLOSED, until)]
    queue.tick(20.0)
    (probe,) = queue.claim(2)
    queue.exchange(completed(slowest), slots=0)
    assert queue.claim(2) == [], "the probe is still under way"
    queue.exchange(completed(probe, 2), slots=0)
    assert queue.gate_events()[-1] == (OPENED, 0.0)


def test_a_probe_keeps_to_the_limit_of_calls_at_once() -> None:
    queue = gated(breaker_failures=1, max_concurrent=2)
    broken, _slow = run(queue, 2)
    queue.exchange(failed(broken), slots=0)
    queue.tick(30.0)
    queue.submit("a", "b")
    assert len(queue.claim(3)) == 1, "the slow call and the probe"


def test_a_breaker_does_not_cut_short_what_the_provider_asked_for() -> None:
    queue = gated(breaker_failures=1, breaker_open_s=30.0)
    first, second = run(queue, 2)
    queue.exchange(failed(first, failure=refused(100.0)), failed(second), slots=0)
    queue.tick(99.0)
    assert queue.claim(2) == []
    queue.restart()
    queue.tick(1.0)
    assert len(queue.claim(2)) == 1, "and then it probes"


def test_a_failed_probe_spends_no_retry_and_lets_another_job_probe_next() -> None:
    queue = gated(breaker_failures=1, breaker_open_s=30.0)
    (broken,) = run(queue, 1)
    queue.submit("a", "b", max_retries=0)
    queue.exchange(failed(broken), slots=0)
    probes = []
    for _ in range(3):
        queue.tick(30.0)
        (probe,) = queue.claim(3)
        probes.append(probe)
        queue.exchange(failed(probe, queue.job(probe).attempt), slots=0)
    assert probes == [broken, "a", broken]
    assert queue.is_live("a"), "it has no retry, and none was needed"
    assert [(attempt.outcome, attempt.attempt) for attempt in queue.attempts("a")] == [("refused", 1)]


def test_a_job_alone_at_a_closed_gate_probes_again_and_again_and_is_given_up_in_the_end() -> None:
    queue = QueueHarness(policy(breaker_failures=1, retry=replace(POLICY.retry, max_refusals=5)))
    queue.submit("alone", max_retries=1)
    calls = 0
    while queue.is_live("alone"):
        for job_id in queue.claim():
            calls += 1
            queue.exchange(failed(job_id, queue.job(job_id).attempt), slots=0)
        queue.tick(10.0)
    assert (queue.state_of("alone"), calls) == ("dead_letter", 1 + 5 + 1)
