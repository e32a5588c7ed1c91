"""OpenAI's format, through the real SDK, to a simulated provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiqueue.config import ProviderConfig
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
from aiqueue.providers.registry import open_provider
from aiqueue.testing.script import Behaviour
from aiqueue.testing.simulated_provider import SimulatedServer
from tests.unit.providers.conftest import CANARY, chat, request

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


async def test_a_chat_is_answered_in_the_common_shape(openai: Provider, server: SimulatedServer) -> None:
    answer = await openai.run(chat("hi there"))
    choice = answer.response.choices[0]
    assert choice.message.content == "A simulated answer to: hi there"
    assert choice.finish_reason == answer.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 6, 8)
    assert answer.response.model == "sim"
    assert answer.request_id == f"req_{server.requests[0].number}"


async def test_raw_is_what_the_provider_sent(openai: Provider) -> None:
    answer = await openai.run(chat())
    assert answer.raw["choices"][0]["message"]["refusal"] is None
    assert set(answer.raw) == {"id", "object", "created", "model", "usage", "choices"}


async def test_every_option_reaches_the_server_under_its_name(openai: Provider, server: SimulatedServer) -> None:
    options: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "max_tokens": 3,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "response_format": {"type": "json_object"},
        "tools": [TOOL],
        "tool_choice": "auto",
        "extra_body": {"guided_regex": "a+", "user": "u"},
    }
    answer = await openai.run(chat(config=options | {"dimensions": None}))
    sent = server.requests[0].body
    extra = options.pop("extra_body")
    assert sent == {"model": "sim", "messages": [{"role": "user", "content": "hi there"}], **options, **extra}
    assert answer.finish_reason == "length"


async def test_absent_fields_of_messages_are_not_sent_as_null(openai: Provider, server: SimulatedServer) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    given = {"role": "assistant", "content": None, "name": None, "tool_calls": [call], "tool_call_id": None}
    await openai.run(chat(messages=[given]))
    assert server.requests[0].body["messages"] == [{"role": "assistant", "content": None, "tool_calls": [call]}]


async def test_a_tool_call_is_kept_in_its_shape(openai: Provider) -> None:
    answer = await openai.run(chat(model="sim:tool", config={"tools": [TOOL]}))
    message = answer.response.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0]["function"] == {"name": "weather", "arguments": '{"city":"Paris"}'}
    assert answer.finish_reason == "tool_calls"


async def test_a_completion_has_its_text_in_both_places(openai: Provider, server: SimulatedServer) -> None:
    answer = await openai.run(request("text_completion", prompt="once", config={"top_k": 1}))
    choice = answer.response.choices[0]
    assert choice.text == choice.message.content == "A simulated answer to: once"
    assert server.requests[0].body == {"model": "sim", "prompt": "once", "top_k": 1}


async def test_embeddings_are_plain_numbers_in_order(openai: Provider) -> None:
    answer = await openai.run(request("embedding", input=["a", "b"], config={"dimensions": 4}))
    assert [vector.index for vector in answer.response.data] == [0, 1]
    assert all(len(vector.embedding) == 4 for vector in answer.response.data)
    assert answer.raw["data"][1]["embedding"] == answer.response.data[1].embedding
    assert answer.usage.total_tokens == 2


@pytest.mark.parametrize(
    ("type_", "config", "field"),
    [
        ("chat_completion", {"dimensions": 3}, "config.dimensions"),
        ("text_completion", {"tools": []}, "config.tools"),
        ("embedding", {"temperature": 0.0}, "config.temperature"),
        ("chat_completion", {"extra_body": {"stream": True}}, "config.extra_body.stream"),
        ("chat_completion", {"extra_body": {"model": "dearer"}}, "config.extra_body.model"),
    ],
)
async def test_an_option_that_has_no_place_is_refused_by_name(
    openai: Provider, server: SimulatedServer, type_: str, config: dict[str, Any], field: str
) -> None:
    body: dict[str, Any] = {"messages": [], "prompt": "x", "input": "x", "config": config}
    with pytest.raises(InvalidRequest, match=f"^Provider oa: {field}: "):
        await openai.run(request(type_, **body))
    assert server.requests == []


async def test_openai_itself_gets_the_limit_under_its_new_name(
    server: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)  # the SDK's own way to have another OpenAI
    provider = open_provider("cloud", ProviderConfig(kind="openai"), {"OPENAI_API_KEY": "key"})
    await provider.run(chat(config={"max_tokens": 3}))
    assert server.requests[0].body["max_completion_tokens"] == 3
    await provider.close()


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("sim:400", InvalidRequest),
        ("sim:401", AuthenticationFailed),
        ("sim:404", InvalidRequest),
        ("sim:409", ProviderServerError),
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
    openai: Provider, server: SimulatedServer, model: str, kind: type[JobError]
) -> None:
    with pytest.raises(kind, match=r"^Provider oa: ") as caught:
        await openai.run(chat(model=model))
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    assert len(server.requests) == 1
    assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"


async def test_a_rate_limit_carries_wait_status_and_id(openai: Provider) -> None:
    with pytest.raises(RateLimited) as caught:
        await openai.run(chat(model="sim:429+retry_after=2"))
    assert (caught.value.retry_after_s, caught.value.status) == (2.0, 429)
    assert str(caught.value.request_id).startswith("req_")


async def test_an_answer_without_choices_says_what_is_missing(openai: Provider) -> None:
    with pytest.raises(MalformedResponse, match="missing required field `choices`"):
        await openai.run(chat(model="sim:no_choices"))


async def test_a_server_that_is_silent_for_the_jobs_timeout_ends_the_attempt(openai: Provider) -> None:
    await openai.run(chat())  # it is connected from here on: to connect may take a busy machine longer than 0.1 s
    with pytest.raises(JobTimeout, match="timeout"):
        await openai.run(chat(model="sim:hang", timeout_s=0.1))


async def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    entry = ProviderConfig(kind="openai", base_url="http://127.0.0.1:1/v1")
    provider = open_provider("gone", entry, {})
    with pytest.raises(ProviderConnectionError, match=r"^Provider gone: connection failed"):
        await provider.run(chat())
    with pytest.raises(ProviderConnectionError):
        await provider.health_check()
    await provider.close()


async def test_cancelling_closes_the_connection(openai: Provider, server: SimulatedServer) -> None:
    running = asyncio.create_task(openai.run(chat(model="sim:hang")))
    await asyncio.to_thread(server.wait_until, lambda requests: len(requests) == 1)
    running.cancel()
    await asyncio.to_thread(server.wait_until, lambda requests: requests[0].outcome == "client_gone")
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_many_calls_run_at_once(openai: Provider, server: SimulatedServer) -> None:
    answers = await asyncio.gather(*(openai.run(chat(f"number {n}")) for n in range(50)))
    assert [answer.response.choices[0].message.content for answer in answers] == [
        f"A simulated answer to: number {n}" for n in range(50)
    ]


async def test_a_local_server_needs_no_key(server: SimulatedServer) -> None:
    provider = open_provider("local", ProviderConfig(kind="openai", base_url=server.openai_url), {})
    await provider.health_check()
    assert (await provider.run(chat())).finish_reason == "stop"
    await provider.close()


async def test_a_key_that_the_provider_quotes_is_taken_out(openai: Provider, server: SimulatedServer) -> None:
    server.script.add(Behaviour(status=401, message=f"no account for {CANARY} or sk-other-key-123"))
    with pytest.raises(AuthenticationFailed) as caught:
        await openai.run(chat())
    assert str(caught.value) == "Provider oa: HTTP 401: no account for [redacted] or [redacted]"
    assert caught.value.__cause__ is None
