"""A provider that refuses: what it asks for is kept within limits, and there is one layer of retries, the queue's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from aiqueue.providers.rate_limits import MAX_WAIT_S
from aiqueue.testing.script import Behaviour
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.tools.provider_rig import ProviderRig, RawServer, TimedScript, calling, chat

_SLACK_S = 0.05  # clocks of the queue and of the test are read at different moments


@pytest.fixture
def provider() -> Iterator[SimulatedServer]:
    """Return a provider that notes when it was asked."""
    with SimulatedServer(TimedScript()) as server:
        yield server


@pytest.fixture(params=["openai", "anthropic"])
async def rig(request: pytest.FixtureRequest, provider: SimulatedServer) -> AsyncIterator[ProviderRig]:
    """Return a system that asks it in one of the two formats."""
    url = provider.openai_url if request.param == "openai" else provider.anthropic_url
    async with calling(url, kind=request.param) as made:
        yield made


def in_two_seconds() -> str:
    """Return an HTTP date; they have whole seconds."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


async def waited_s(rig: ProviderRig, provider: SimulatedServer, retry_after: str) -> float:
    """Let a job be refused once with this header; return how long it was until the second call."""
    provider.script.add(Behaviour(status=429, retry_after=retry_after))
    info = await rig.wait(await rig.submit_job(chat()))
    assert (info.status, info.retry_count, len(info.attempts)) == ("completed", 0, 1), "a refusal spends no retry"
    first, second = provider.script.times  # type: ignore[attr-defined]  # exactly two calls
    return float(second - first)


async def test_a_wait_in_seconds_is_kept(rig: ProviderRig, provider: SimulatedServer) -> None:
    assert await waited_s(rig, provider, "1") >= 1.0 - _SLACK_S


async def test_a_wait_until_a_date_is_kept(rig: ProviderRig, provider: SimulatedServer) -> None:
    assert await waited_s(rig, provider, in_two_seconds()) >= 1.0 - _SLACK_S


async def test_a_negative_wait_is_no_word_of_the_provider_and_costs_a_second(
    rig: ProviderRig, provider: SimulatedServer
) -> None:
    provider.script.add(Behaviour(status=429, retry_after="-5"))
    info = await rig.wait(await rig.submit_job(chat()))
    refused_at = info.attempts[0].ended_at
    assert refused_at is not None
    assert [event.until for event in await rig.closings()] == pytest.approx([refused_at.timestamp() + 1.0], abs=0.01)


async def test_an_endless_wait_is_capped_at_an_hour(rig: ProviderRig, provider: SimulatedServer) -> None:
    provider.script.add(Behaviour(status=429, retry_after=str(10**9)))
    asked_at = time.time()
    job_id = await rig.submit_job(chat())
    (closed,) = await rig.closings()
    assert MAX_WAIT_S - _SLACK_S <= closed.until - asked_at <= MAX_WAIT_S + 30.0
    info = await rig.get_job_status(job_id)
    assert info is not None
    assert info.status == "queued"
    assert (await rig.cancel_job(job_id)).cancelled
    assert len(provider.requests) == 1


async def test_a_wait_in_milliseconds_is_kept_and_goes_before_the_one_in_seconds() -> None:
    times: list[float] = []
    message = {"role": "assistant", "content": "yes"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    body = json.dumps(answer).encode()

    async def reply(writer: asyncio.StreamWriter, number: int) -> None:
        times.append(time.monotonic())
        head = (
            b"HTTP/1.1 200 OK\r\n"
            if number > 1
            else b"HTTP/1.1 429 Slow\r\nretry-after-ms: 400\r\nretry-after: 3600\r\n"
        )
        writer.write(head + b"content-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    server = RawServer(reply)
    async with server.listening() as url, calling(url) as rig:
        info = await rig.wait(await rig.submit_job(chat()))
    assert (info.status, info.retry_count, server.requests) == ("completed", 0, 2)
    assert times[1] - times[0] >= 0.4 - _SLACK_S


@pytest.mark.parametrize("status", [500, 502, 503, 529, 408, 409])
async def test_what_may_pass_is_called_once_for_each_attempt(
    rig: ProviderRig, provider: SimulatedServer, status: int
) -> None:
    passes, stays = await rig.submit_jobs(
        [chat("passes", f"sim:{status}*2,ok"), chat("stays", f"sim:{status}")], {"max_retries": 2}
    )
    infos = await rig.wait_all([passes, stays])
    assert [(info.status, info.attempt) for info in infos] == [("completed", 3), ("dead_letter", 3)]
    assert infos[1].error is not None
    assert (infos[1].error.kind, infos[1].error.status) == ("provider_server_error", status)
    assert len(provider.requests) == 6, "a second layer of retries: more calls than attempts"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_can_not_pass_is_called_once(rig: ProviderRig, provider: SimulatedServer, status: int) -> None:
    info = await rig.wait(await rig.submit_job(chat(model=f"sim:{status}")))
    assert (info.status, info.attempt, len(provider.requests)) == ("failed", 1, 1)


async def test_a_wait_that_a_503_asks_for_is_kept(rig: ProviderRig, provider: SimulatedServer) -> None:
    provider.script.add(Behaviour(status=503, retry_after="1"))
    info = await rig.wait(await rig.submit_job(chat()))
    assert (info.status, info.retry_count) == ("completed", 0), "a wait that was asked for spends no retry"
    first, second = provider.script.times  # type: ignore[attr-defined]
    assert second - first >= 1.0 - _SLACK_S
