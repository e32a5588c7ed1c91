"""Gates: what a provider lets through, and what a job that waits at one keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiqueue.engine.gates import GateKey, Gates, asks_to_wait
from aiqueue.engine.policy import GatePolicy
from aiqueue.engine.records import LaneKey
from aiqueue.engine.states import JobState
from aiqueue.protocol import Failure
from aiqueue.testing.jobs import PROVIDER, cancelled, completed, failed
from tests.tools.gated_queue import CLOSED, OPENED, gated, policy, refused, run
from tests.tools.queue_harness import POLICY, QueueHarness, ids


def overloaded(status: int = 529, retry_after_s: float | None = None) -> Failure:
    return Failure("provider_server_error", f"Provider sim: {status}", True, status, retry_after_s)


# --- the provider's own word -----------------------------------------------------------------------------------------


def test_retry_after_closes_the_gate_until_then_and_time_opens_it() -> None:
    queue = gated()
    queue.submit("a", "b")
    queue.claim()
    queue.exchange(failed("a", failure=refused(20.0)), slots=0)
    until = queue.clock.now() + 20.0
    assert queue.engine.next_due(now=queue.clock.now()) == until
    queue.tick(19.999)
    assert (queue.claim(2), queue.engine.ready("pool", now=queue.clock.now())) == ([], 0)
    queue.tick(until - queue.clock.now())
    assert queue.claim(2) == ["a", "b"]
    assert queue.gate_events() == [(CLOSED, until), (OPENED, 0.0)]


def test_a_refused_job_keeps_its_place_and_spends_no_retry() -> None:
    queue = gated()
    queue.submit("first", "second", max_retries=0)
    queue.claim()
    queue.exchange(failed("first", failure=refused(5.0)), slots=0)
    assert (queue.job("first").state, queue.job("first").retries) == (JobState.QUEUED, 0)
    assert "retried" not in queue.names("first")
    queue.tick(5.0)
    assert queue.claim(2) == ["first", "second"]


def test_without_a_word_from_the_provider_the_wait_doubles_up_to_its_limit() -> None:
    queue = gated()
    queue.submit("a")
    waits = []
    for attempt in range(1, 9):
        queue.claim()
        queue.exchange(failed("a", attempt, refused()), slots=0)
        waits.append(queue.gate_events()[-1][1] - queue.clock.now())
        queue.tick(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize("asked", [0.0, -5.0, 0.001, 0.999, float("nan"), None])
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_none_is_taken_as_no_word_of_the_provider(status: int, asked: float | None) -> None:
    failure = refused(asked) if status == 429 else overloaded(status, asked)
    if not asks_to_wait(failure):
        return  # of a 5xx, that is an ordinary failure
    queue = gated()
    queue.submit("a")
    waits = []
    for attempt in range(1, 8):
        assert queue.claim() == ["a"]
        queue.exchange(failed("a", attempt, failure), slots=0)
        waits.append(queue.gate_events()[-1][1] - queue.clock.now())
        queue.tick(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@pytest.mark.parametrize("asked", [3_600.0, 3_601.0, 1e9, float("inf")])
@pytest.mark.parametrize("status", [429, 503])
def test_no_word_of_a_provider_closes_a_gate_or_puts_off_a_job_for_longer_than_an_hour(
    status: int, asked: float
) -> None:
    queue = QueueHarness(policy(retry=replace(POLICY.retry, max_refusals=0)))
    queue.submit("a")
    queue.claim()
    queue.exchange(failed("a", failure=refused(asked) if status == 429 else overloaded(status, asked)), slots=0)
    now = queue.clock.now()
    assert (queue.gate_events()[-1][1], queue.job("a").run_at) == (now + 3_600.0, now + 3_600.0)


def test_calls_that_were_under_way_together_double_the_wait_once() -> None:
    queue = gated()
    for name in run(queue, 6):
        queue.exchange(failed(name, failure=refused()), slots=0)
        queue.clock.advance(0.01)
    assert max(until for _, until in queue.gate_events()) <= queue.clock.now() + 1.0


def test_an_answer_resets_the_wait() -> None:
    queue = gated()
    queue.submit("a", "b")
    queue.claim()
    queue.exchange(failed("a", failure=refused()), slots=0)
    queue.tick(1.0)
    assert queue.claim() == ["a"]
    queue.exchange(completed("a", 2), slots=0)
    queue.claim()
    queue.exchange(failed("b", failure=refused()), slots=0)
    assert queue.gate_events()[-1] == (CLOSED, queue.clock.now() + 1.0)


@pytest.mark.parametrize("status", [500, 503, 529])
def test_retry_after_closes_the_gate_whatever_the_provider_calls_its_trouble(status: int) -> None:
    queue = gated()
    first, second = run(queue, 2)
    queue.exchange(failed(first, failure=overloaded(status, 20.0)), slots=0)
    until = queue.clock.now() + 20.0
    assert queue.gate_events() == [(CLOSED, until)]
    assert queue.events[-1].reason == "overloaded, and the provider asked to wait"
    assert (queue.job(first).state, queue.job(first).retries) == (JobState.QUEUED, 0), "its place, and its retries"
    assert [(kept.outcome, kept.failure and kept.failure.status) for kept in queue.attempts(first)] == [
        ("refused", status)
    ]
    queue.submit("later")
    queue.exchange(completed(second), slots=0)
    queue.tick(19.999)
    assert queue.claim(3) == []
    queue.tick(until - queue.clock.now())
    assert queue.claim(3) == [first, "later"]


@pytest.mark.parametrize(("status", "asked"), [(503, None), (503, 0.0), (529, -1.0), (409, 20.0), (408, 20.0)])
def test_without_a_wait_for_all_an_outage_leaves_the_gate_to_the_breaker(status: int, asked: float | None) -> None:
    queue = gated()
    (name,) = run(queue, 1)
    queue.exchange(failed(name, failure=overloaded(status, asked)), slots=0)
    assert queue.gate_events() == []
    assert (queue.job(name).state, queue.job(name).retries) == (JobState.SCHEDULED, 1)


def test_a_later_word_can_only_prolong_the_wait() -> None:
    queue = gated()
    first, second = run(queue, 2)
    queue.exchange(failed(first, failure=refused(60.0)), failed(second, failure=refused(2.0)), slots=0)
    assert queue.gate_events() == [(CLOSED, queue.clock.now() + 60.0)]


def test_a_success_of_an_earlier_call_does_not_open_a_gate_the_provider_closed() -> None:
    queue = gated()
    first, second = run(queue, 2)
    queue.exchange(failed(first, failure=refused(60.0)), completed(second))
    assert queue.claim() == []


def test_refusals_are_waited_out_only_so_often_and_then_count_as_failures() -> None:
    queue = QueueHarness(policy(retry=replace(POLICY.retry, max_refusals=2)))
    queue.submit("a", max_retries=0)
    for attempt in (1, 2, 3):
        assert queue.claim() == ["a"]
        queue.exchange(failed("a", attempt, refused(1.0)), slots=0)
        queue.tick(1.0)
        queue.restart()  # the count survives
    assert queue.state_of("a") == "dead_letter"
    assert queue.engine.core.refusals == {}


def test_another_model_of_the_provider_has_its_own_gate() -> None:
    queue = gated()
    queue.submit("a", model="m-1")
    queue.claim()
    queue.submit("b", model="m-2")
    queue.exchange(failed("a", failure=refused(60.0)), slots=0)
    assert queue.claim(2) == ["b"]


# --- the adaptive limit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [503, 529])
def test_an_overload_halves_the_calls_at_once_but_once_per_flight(status: int) -> None:
    queue = gated(adaptive=True)
    for name in run(queue, 8):
        queue.exchange(failed(name, failure=overloaded(status)), slots=0)
        queue.clock.advance(0.01)
    assert len(run(queue, 8)) == 4


def test_other_failures_halve_nothing() -> None:
    queue = gated(adaptive=True)
    queue.exchange(*(failed(name, failure=overloaded(500)) for name in run(queue, 8)), slots=0)
    assert len(run(queue, 8)) == 8


def test_a_429_halves_too_and_the_limit_never_falls_below_one() -> None:
    queue = gated(adaptive=True)
    queue.exchange(*(failed(name, failure=refused(1.0)) for name in run(queue, 2)), slots=0)
    for attempt in (2, 3):
        queue.tick(1.0)
        (name,) = queue.claim(2)
        queue.clock.advance(0.001)
        queue.exchange(failed(name, attempt, refused(1.0)), slots=0)


def test_the_limit_grows_by_one_for_each_window_of_answers() -> None:
    queue = gated(adaptive=True)
    first, *rest = run(queue, 4)
    queue.exchange(failed(first, failure=overloaded()), *map(cancelled, rest), slots=0)
    queue.submit(*(f"more-{number}" for number in range(40)))
    flights = []
    for _ in range(4):
        claimed = queue.claim(40)
        flights.append(len(claimed))
        queue.exchange(*(completed(name, queue.job(name).attempt) for name in claimed), slots=0)
    assert flights == [2, 3, 4, 5]


# --- who shares a gate, and who does not wait ------------------------------------------------------------------------


def test_lanes_of_several_pools_share_the_gate_of_their_provider_credential_and_model() -> None:
    gates = Gates({PROVIDER: GatePolicy()})
    here, there = (gates.of(LaneKey(pool, PROVIDER, "m", "KEY"), now=0.0) for pool in ("pool", "other-pool"))
    assert here is there
    assert here.key == GateKey(PROVIDER, "KEY", "m")
    others = [LaneKey("pool", PROVIDER, "m", "KEY-2"), LaneKey("pool", PROVIDER, "m-2", "KEY")]
    assert all(gates.of(lane, now=0.0) is not here for lane in others)


def test_a_job_that_is_not_to_wait_fails_at_once_at_a_closed_gate() -> None:
    queue = gated()
    queue.exchange(failed(*run(queue, 1), failure=refused(60.0)), slots=0)
    assert queue.submit("hasty", fail_fast=True) == [None]
    assert queue.state_of("hasty") == "failed"
    failure = queue.events[-1].failure
    assert failure is not None
    assert (failure.kind, failure.retryable) == ("circuit_open", True)
    assert failure.message.startswith("Circuit breaker: ")
    assert queue.names("hasty") == ["submitted", "failed"]


def test_jobs_that_are_not_to_wait_fail_when_their_gate_closes_and_only_they() -> None:
    queue = gated()
    (broken,) = run(queue, 1)
    queue.submit("hasty", fail_fast=True)
    queue.submit("patient")
    queue.submit("elsewhere", model="m-2", fail_fast=True)
    queue.exchange(failed(broken, failure=refused(60.0)), slots=0)
    assert [queue.state_of(name) for name in ("hasty", "patient", "elsewhere")] == ["failed", "queued", "queued"]
    names = [event.name for event in queue.events]
    assert names.index(CLOSED) < names.index("job:failed")


@pytest.mark.parametrize("back", ["handed back", "lost", "due"])
def test_a_job_that_is_not_to_wait_fails_when_it_comes_back_to_a_closed_gate(back: str) -> None:
    queue = gated()
    if back == "due":
        queue.submit("hasty", fail_fast=True, delay_ms=10_000)
    else:
        queue.submit("hasty", fail_fast=True)
        queue.claim(worker="worker-2")
    queue.exchange(failed(*run(queue, 1), failure=refused(60.0)), slots=0)
    assert queue.is_live("hasty")
    if back == "due":
        queue.tick(10.0)
    elif back == "lost":
        queue.lose("worker-2")
    else:
        queue.exchange(cancelled("hasty"), worker="worker-2", slots=0)
    assert queue.state_of("hasty") == "failed"


# --- events and restarts ---------------------------------------------------------------------------------------------


def test_a_gate_tells_when_it_opens_and_why_it_closed() -> None:
    queue = gated()
    queue.exchange(failed(*run(queue, 1), failure=refused(7.0)), slots=0)
    (event,) = [event for event in queue.events if event.name == CLOSED]
    assert (event.gate, event.provider, event.model) == ("sim/model-a", PROVIDER, "model-a")
    assert (event.reason, event.job_id) == ("rate limited by the provider", "")


def test_a_closed_gate_is_still_closed_after_a_restart_and_opens_at_its_time() -> None:
    queue = gated()
    queue.exchange(failed(*run(queue, 1), failure=refused(60.0)), slots=0)
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    queue.tick(59.0)
    assert queue.claim() == []
    queue.tick(1.0)
    assert len(queue.claim()) == 1


def test_a_tripped_breaker_still_probes_after_a_restart() -> None:
    queue = gated(breaker_failures=2)
    queue.exchange(*map(failed, run(queue, 2)), slots=0)
    queue.restart()
    queue.tick(30.0)
    queue.restart()
    assert len(queue.claim(2)) == 1
    assert queue.claim(2) == []


def test_calls_that_run_count_after_a_restart() -> None:
    queue = gated(max_concurrent=2)
    queue.submit(*"abc")
    queue.claim(2)
    queue.restart()
    assert queue.claim(3, worker="worker-2") == []
    queue.exchange(completed("a"), slots=0)
    assert ids(queue.exchange(worker="worker-2", slots=3).claims) == ["c"]


def test_a_model_may_be_called_anything() -> None:
    queue = gated()
    odd = "a\x1fb/c\nü"
    queue.submit("a", model=odd)
    queue.claim()
    queue.exchange(failed("a", failure=refused(60.0)), slots=0)
    queue.restart()
    (gate,) = queue.engine.core.gates
    assert (gate.key.model, gate.closed_until) == (odd, queue.clock.now() + 60.0)
