"""A provider that is down with a thousand jobs waiting for it, and comes back."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiqueue.testing.script import Behaviour
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.tools.provider_rig import TimedScript, calling, chat

_JOBS, _SLOTS, _FAILURES = 1_000, 16, 5
_PROBES = 4  # the breaker lets so many through before the provider is back
_GATE: dict[str, Any] = {"breaker_failures": _FAILURES, "breaker_open_s": 0.3}


def extra_attempts(infos: list[Any]) -> int:
    """Count the attempts that were spent on the outage."""
    return sum(info.attempt - 1 for info in infos)


async def test_a_provider_that_is_down_is_asked_a_few_times_and_a_thousand_jobs_outlast_it() -> None:
    script = TimedScript()
    script.down = Behaviour(status=503)
    with SimulatedServer(script) as provider:
        async with calling(provider.openai_url, slots=_SLOTS, gate=_GATE) as rig:
            ids = await rig.submit_jobs([chat(str(number)) for number in range(_JOBS)])
            await rig.closings(_PROBES)
            script.down = None
            infos = await rig.wait_all(ids)
        refused, calls = script.refused, len(provider.requests)
    print(f"{_JOBS} jobs, {calls} calls, {refused} of them while the provider was down")
    assert {info.status for info in infos} == {"completed"}
    # Those under way when the breaker opened, and one for each time it looked again.
    assert refused <= _SLOTS + 2 * _PROBES
    assert extra_attempts(infos) == refused, "an attempt was spent without a call, or a call made without an attempt"
    assert calls == _JOBS + refused


async def test_a_provider_that_comes_back_is_not_run_over() -> None:
    script = TimedScript()
    script.down = Behaviour(status=503)
    peaks: list[int] = []
    with SimulatedServer(script) as provider:
        async with calling(provider.openai_url, slots=64, gate=_GATE) as rig:
            ids = await rig.submit_jobs([chat(str(number), "sim:ok+latency=0.05") for number in range(200)])
            await rig.closings(_PROBES)
            before, script.down = len(provider.requests), None
            waiting = asyncio.ensure_future(rig.wait_all(ids))
            while len(provider.requests) < before + 40 and not waiting.done():
                peaks.append(sum(seen.outcome == "open" for seen in list(provider.requests)))
                await asyncio.sleep(0.005)
            infos = await waiting
    print(f"at most {max(peaks)} calls at once in the first 40 of 64 slots")
    assert {info.status for info in infos} == {"completed"}
    assert max(peaks) <= 16, "all slots went at once to a provider that has just come back"


async def test_a_provider_that_refuses_connections_costs_few_attempts_and_all_jobs_end_when_it_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    async with calling(f"http://127.0.0.1:{port}/v1", slots=_SLOTS, gate=_GATE) as rig:
        ids = await rig.submit_jobs([chat(str(number)) for number in range(_JOBS)])
        await rig.closings(_PROBES)
        with SimulatedServer(port=port) as provider:
            infos = await rig.wait_all(ids)
            calls = len(provider.requests)
    lost = extra_attempts(infos)
    print(f"{_JOBS} jobs, {lost} attempts spent on connections that were refused")
    assert {info.status for info in infos} == {"completed"}
    assert lost <= _SLOTS + 2 * _PROBES
    assert calls == _JOBS
