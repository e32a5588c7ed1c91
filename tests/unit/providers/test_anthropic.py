"""Anthropic's format, through the real SDK, to a simulated provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiqueue.errors import (
    AuthenticationFailed,
    InvalidRequest,
    JobError,
    JobTimeout,
    MalformedResponse,
    ProviderConnectionError,
    ProviderServerError,
    RateLimited,
)
from aiqueue.providers.base import Provider
from aiqueue.testing.script import Behaviour
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.unit.providers.conftest import CANARY, chat, request

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Today's", "parameters": {"type": "object", "properties": {}}},
}


async def test_a_chat_is_answered_in_the_common_shape(anthropic: Provider, server: SimulatedServer) -> None:
    answer = await anthropic.run(chat("hi there"))
    choice = answer.response.choices[0]
    assert choice.message.content == "A simulated answer to: hi there"
    assert choice.finish_reason == answer.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 6, 8)
    assert answer.request_id == f"req_{server.requests[0].number}"
    assert answer.raw["stop_reason"] == "end_turn"


async def test_every_option_reaches_the_server_in_its_form(anthropic: Provider, server: SimulatedServer) -> None:
    config: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 3,
        "stop": "END",
        "tools": [TOOL],
        "tool_choice": "required",
        "extra_body": {"thinking": {"type": "disabled"}},
    }
    answer = await anthropic.run(chat(config=config))
    assert server.requests[0].body == {
        "model": "sim",
        "messages": [{"role": "user", "content": "hi there"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 3,
        "stop_sequences": ["END"],
        "tools": [{"name": "weather", "description": "Today's", "input_schema": TOOL["function"]["parameters"]}],  # type: ignore[index]
        "tool_choice": {"type": "any"},
        "thinking": {"type": "disabled"},
    }
    assert answer.finish_reason == "length"


async def test_without_a_limit_the_documented_one_is_sent(anthropic: Provider, server: SimulatedServer) -> None:
    await anthropic.run(chat())
    assert server.requests[0].body["max_tokens"] == 1024


async def test_a_tool_call_comes_back_in_openais_shape(anthropic: Provider) -> None:
    answer = await anthropic.run(chat(model="sim:tool", config={"tools": [TOOL]}))
    message = answer.response.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0]["type"] == "function"
    assert message.tool_calls[0]["function"] == {"name": "weather", "arguments": '{"city":"Paris"}'}
    assert answer.finish_reason == "tool_calls"


@pytest.mark.parametrize("field", ["seed", "min_p", "presence_penalty", "response_format", "dimensions"])
async def test_an_option_that_the_format_lacks_is_refused_by_name(
    anthropic: Provider, server: SimulatedServer, field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"config.{field}"):
        await anthropic.run(chat(config={field: 1}))
    assert server.requests == []


async def test_a_job_type_that_the_format_lacks_is_refused(anthropic: Provider) -> None:
    with pytest.raises(InvalidRequest, match="type embedding is not supported"):
        await anthropic.run(request("embedding", input="x"))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("sim:400", InvalidRequest),
        ("sim:401", AuthenticationFailed),
        ("sim:403", AuthenticationFailed),
        ("sim:404", InvalidRequest),
        ("sim:429+retry_after=2", RateLimited),
        ("sim:500", ProviderServerError),
        ("sim:529", ProviderServerError),
        ("sim:cut", ProviderConnectionError),
        ("sim:reset", ProviderConnectionError),
        ("sim:malformed", MalformedResponse),
        ("sim:error_body", ProviderServerError),
        ("sim:no_choices", MalformedResponse),
    ],
)
async def test_a_fault_becomes_its_error_after_one_call(
    anthropic: Provider, server: SimulatedServer, model: str, kind: type[JobError]
) -> None:
    with pytest.raises(kind, match=r"^Provider an: ") as caught:
        await anthropic.run(chat(model=model))
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    assert len(server.requests) == 1
    assert CANARY in str(server.requests[0].headers)


async def test_a_rate_limit_carries_wait_status_and_id(anthropic: Provider) -> None:
    with pytest.raises(RateLimited) as caught:
        await anthropic.run(chat(model="sim:429+retry_after=2"))
    assert (caught.value.retry_after_s, caught.value.status) == (2.0, 429)
    assert str(caught.value.request_id).startswith("req_")


async def test_a_key_that_the_provider_quotes_is_taken_out(anthropic: Provider, server: SimulatedServer) -> None:
    server.script.add(Behaviour(status=401, message=f"invalid x-api-key: {CANARY}"))
    with pytest.raises(AuthenticationFailed) as caught:
        await anthropic.run(chat())
    assert CANARY not in str(caught.value)
    assert "[redacted]" in str(caught.value)


async def test_a_server_that_is_silent_for_the_jobs_timeout_ends_the_attempt(anthropic: Provider) -> None:
    await anthropic.run(chat())  # it is connected from here on: to connect may take a busy machine longer than 0.1 s
    with pytest.raises(JobTimeout, match="timeout"):
        await anthropic.run(chat(model="sim:hang", timeout_s=0.1))


async def test_cancelling_closes_the_connection(anthropic: Provider, server: SimulatedServer) -> None:
    running = asyncio.create_task(anthropic.run(chat(model="sim:hang")))
    await asyncio.to_thread(server.wait_until, lambda requests: len(requests) == 1)
    running.cancel()
    await asyncio.to_thread(server.wait_until, lambda requests: requests[0].outcome == "client_gone")
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_server_that_lists_its_models_is_healthy(anthropic: Provider) -> None:
    await anthropic.health_check()
