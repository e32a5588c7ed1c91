"""One attempt: whatever happens becomes an outcome."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from aiqueue.errors import AuthenticationFailed, ModelUnavailable, RateLimited, error_from
from aiqueue.protocol import ClaimedJob, Outcome
from aiqueue.providers.base import Provider, ProviderRequest
from aiqueue.results import decode_result
from aiqueue.testing.jobs import PROVIDER, chat
from aiqueue.worker.runner import JobRunner, ProviderSet
from tests.tools.fake_provider import FakeProvider
from tests.tools.turns import until


def claimed(payload: bytes = b'{"messages":[]}', *, timeout_ms: int = 30_000, provider: str = PROVIDER) -> ClaimedJob:
    return ClaimedJob("a", 3, "chat_completion", provider, "model-a", timeout_ms, payload)


def runner_of(provider: FakeProvider, *, max_result_bytes: int = 10_000) -> JobRunner:
    return JobRunner(lambda name: provider, max_result_bytes=max_result_bytes)


async def failure_of(provider: FakeProvider, job: ClaimedJob | None = None, **limits: int) -> tuple[str, str, bool]:
    """Return kind, message and retryable of an attempt that fails."""
    outcome = await runner_of(provider, **limits).run(job or claimed())
    assert outcome.failure is not None
    assert (outcome.job_id, outcome.attempt, outcome.result, outcome.cancelled) == ("a", 3, b"", False)
    return outcome.failure.kind, outcome.failure.message, outcome.failure.retryable


def raising(error: BaseException) -> FakeProvider:
    def behave(request: ProviderRequest) -> None:
        raise error

    provider = FakeProvider()
    provider.behave = behave
    return provider


async def test_an_answer_becomes_a_result() -> None:
    provider = FakeProvider()
    outcome = await runner_of(provider).run(claimed(b'{"messages":[1]}'))
    assert (outcome.job_id, outcome.attempt, outcome.failure, outcome.cancelled) == ("a", 3, None, False)
    result = decode_result(outcome.result)
    assert result.response.choices[0].message.content == result.text == "Hi there"
    assert (result.tokens, result.usage.prompt_tokens, result.finish_reason) == (5, 3, "stop")
    assert (result.provider, result.model, result.request_id) == ("sim", "model-a", "req-1")
    assert result.raw == {"echo": {"messages": [1]}}
    assert result.latency >= 0.0


async def test_a_provider_is_given_the_job_as_it_was_submitted() -> None:
    provider = FakeProvider()
    await runner_of(provider).run(claimed(b'{"x":[1,2,null]}', timeout_ms=1_500))
    (request,) = provider.calls
    assert structs.replace(request, on_partial=None) == ProviderRequest(
        job_id="a", type="chat_completion", model="model-a", body={"x": [1, 2, None]}, timeout_s=1.5
    )


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("Provider sim: 429", status=429, retry_after_s=7.0, request_id="req-9"),
        AuthenticationFailed("Provider sim: 401", status=401),
        ModelUnavailable("Provider sim: no such file"),
    ],
    ids=lambda error: error.kind,
)
async def test_a_providers_error_travels_whole(error: RateLimited) -> None:
    outcome = await runner_of(raising(error)).run(claimed())
    assert outcome.failure == error.to_failure()
    assert outcome.failure is not None
    found = error_from(outcome.failure)
    assert (type(found), str(found), found.status) == (type(error), str(error), error.status)


async def test_an_attempt_that_takes_too_long_is_a_timeout_that_may_be_retried() -> None:
    provider = FakeProvider()
    provider.hold()
    kind, message, may_be_retried = await failure_of(provider, claimed(timeout_ms=1))
    assert (kind, may_be_retried) == ("timeout", True)
    assert message == "Job timeout: no answer from sim within 0.001 s"
    assert provider.stopped == ["a"], "the call must not go on"


async def test_a_bug_in_a_provider_is_a_worker_fault_without_its_details() -> None:
    kind, message, may_be_retried = await failure_of(raising(KeyError("sk-secret")))
    assert (kind, may_be_retried) == ("worker_fault", False)
    assert "KeyError" in message
    assert "secret" not in message


async def test_a_timeout_of_the_providers_own_is_not_the_jobs() -> None:
    kind, message, _ = await failure_of(raising(TimeoutError("inner")))
    assert (kind, message) == ("worker_fault", "Worker fault: TimeoutError; see the worker's log")


async def test_running_out_of_memory_is_said_so_and_may_be_retried() -> None:
    assert (await failure_of(raising(MemoryError())))[::2] == ("out_of_memory", True)


async def test_a_payload_that_is_no_json_is_a_worker_fault() -> None:
    assert (await failure_of(FakeProvider(), claimed(b"\xff")))[0] == "worker_fault"


async def test_a_result_over_the_limit_is_refused_with_advice() -> None:
    outcome = await runner_of(FakeProvider(), max_result_bytes=100).run(claimed())
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.retryable) == ("result_too_large", False)
    assert "max_result_bytes" in outcome.failure.message
    assert (outcome.result, outcome.tokens) == (b"", 5), "nothing is kept of it, and it was paid"


async def test_a_cancelled_attempt_is_an_outcome_and_stops_its_call() -> None:
    provider = FakeProvider()
    provider.hold()
    attempt = asyncio.create_task(runner_of(provider).run(claimed()))
    await until(lambda: provider.running)
    attempt.cancel()
    assert await attempt == Outcome("a", 3, cancelled=True)
    assert provider.stopped == ["a"]


@pytest.mark.parametrize(("limit", "kept"), [(10_000, "Hi th"), (10, "")])
async def test_what_a_cancelled_attempt_had_produced_is_its_outcome_unless_it_is_too_large(
    limit: int, kept: str
) -> None:
    provider = FakeProvider()
    provider.partial = "Hi th"
    provider.hold()
    attempt = asyncio.create_task(runner_of(provider, max_result_bytes=limit).run(claimed()))
    await until(lambda: provider.running)
    attempt.cancel()
    outcome = await attempt
    assert (outcome.cancelled, outcome.failure) == (True, None)
    found = decode_result(outcome.result) if outcome.result else None
    assert (found.text if found else "") == kept
    assert outcome.tokens == 5
    assert found is None or found.finish_reason == "cancelled"


async def test_a_call_that_gives_itself_up_is_no_cancel_by_the_user() -> None:
    """As a cancel it would be handed back, at no cost of attempts, and run again for ever."""
    assert (await failure_of(raising(asyncio.CancelledError())))[::2] == ("worker_fault", False)


# --- the providers of one worker -------------------------------------------------------------------------------------


def opened(names: tuple[str, ...] = ("a", "b")) -> tuple[ProviderSet, list[str]]:
    asked: list[str] = []

    def open_one(name: str) -> Provider:
        asked.append(name)
        if name == "b":
            raise ModelUnavailable(f"Provider {name}: no key")
        return FakeProvider(name)

    return ProviderSet(open_one, names), asked


async def test_a_provider_is_opened_when_first_asked_for_and_once() -> None:
    providers, asked = opened()
    assert asked == []
    assert providers("a") is providers("a")
    assert asked == ["a"]


async def test_one_that_can_not_be_opened_says_why_each_time_and_harms_no_other() -> None:
    providers, asked = opened()
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="no key"):
            providers("b")
    assert providers("a").name == "a"
    assert asked == ["b", "b", "a"]


async def test_one_of_another_pool_is_refused() -> None:
    providers, asked = opened()
    with pytest.raises(ModelUnavailable, match="not served by this worker's pool"):
        providers("c")
    assert asked == []


async def test_all_that_were_opened_are_closed() -> None:
    providers, _ = opened(("a", "c"))
    made = [providers("a"), providers("c")]
    await providers.close()
    assert [provider.closed for provider in made] == [1, 1]  # type: ignore[attr-defined]


async def test_a_job_of_a_provider_that_is_not_there_fails_for_good() -> None:
    providers, _ = opened()
    outcome = await JobRunner(providers, max_result_bytes=1_000).run(claimed(b"{}", provider="c"))
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.retryable) == ("model_unavailable", False)
    assert chat()["provider"] == PROVIDER


async def test_a_worker_may_cap_the_time_limits_that_jobs_bring_along() -> None:
    provider = FakeProvider()
    provider.hold()
    runner = JobRunner(lambda name: provider, max_result_bytes=10_000, max_execution_s=0.01)
    outcome = await runner.run(claimed(timeout_ms=60_000))
    assert outcome.failure is not None
    assert (outcome.failure.kind, "within 0.01 s" in outcome.failure.message) == ("timeout", True)
    assert provider.calls[0].timeout_s == 0.01


async def test_a_runner_knows_which_of_its_jobs_has_outlived_its_time() -> None:
    provider = FakeProvider()
    provider.hold()
    runner = runner_of(provider)
    began = asyncio.get_running_loop().time()
    running = asyncio.create_task(runner.run(claimed(timeout_ms=5_000)))
    await until(lambda: provider.running)
    late_s, job_id = runner.deadlines.longest_overrun(now=began + 7.0)
    assert (job_id, 0.0 < late_s <= 2.0) == ("a", True)
    assert runner.deadlines.longest_overrun(now=began) == (0.0, "")
    provider.release()
    await running
    assert runner.deadlines.longest_overrun(now=began + 7.0) == (0.0, "")
