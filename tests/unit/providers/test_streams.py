"""Streamed chats: the same answers as without, what was said before a cancel, and errors in their middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from aiqueue.config import ProviderConfig
from aiqueue.errors import (
    ContextLengthExceeded,
    JobError,
    MalformedResponse,
    ProviderConnectionError,
    ProviderServerError,
    RateLimited,
)
from aiqueue.providers.anthropic_stream import MessageAssembly
from aiqueue.providers.base import Provider, ProviderAnswer
from aiqueue.providers.classify import error_in, from_answer, status_of
from aiqueue.providers.openai_stream import ChatAssembly
from aiqueue.providers.registry import open_provider
from aiqueue.providers.remote import Caller, Credential
from aiqueue.testing.simulated_provider import SimulatedServer, _Reply
from tests.tools.provider_rig import calling
from tests.tools.provider_rig import chat as job
from tests.unit.providers.conftest import CANARY, chat, request

KINDS = ["openai", "anthropic"]


def entry(kind: str, server: SimulatedServer, *, stream: bool = True) -> Any:
    url = server.openai_url if kind == "openai" else server.anthropic_url
    return ProviderConfig(kind=kind, base_url=url, credential="KEY", stream=stream)


@pytest.fixture(params=KINDS)
async def provider(request: pytest.FixtureRequest, server: SimulatedServer) -> AsyncIterator[Provider]:
    """A provider of each kind that streams."""
    made = open_provider("p", entry(request.param, server), {"KEY": CANARY})
    yield made
    await made.close()


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once anything of an answer has come."""
    event = asyncio.Event()
    for assembly in (ChatAssembly, MessageAssembly):
        add = assembly.add

        def and_tell(self: Any, piece: dict[str, Any], add: Any = add) -> None:
            add(self, piece)
            if self.said:
                event.set()

        monkeypatch.setattr(assembly, "add", and_tell)
    return event


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [{}, {"max_tokens": 3}])
async def test_a_streamed_answer_is_that_of_a_call_without(
    server: SimulatedServer, kind: str, config: dict[str, Any]
) -> None:
    answers = []
    for stream in (True, False):
        provider = open_provider("p", entry(kind, server, stream=stream), {"KEY": CANARY})
        answer = await provider.run(chat("tell me", config=config))
        answers.append(structs.replace(answer, request_id=None, raw=None, response=None))
        assert server.requests[-1].body.get("stream", False) is stream
        assert answer.request_id == f"req_{server.requests[-1].number}"
        said = answer.response.choices[0]
        assert said.message.content == ("A simulated answer" if config else "A simulated answer to: tell me")
        assert said.finish_reason == ("length" if config else "stop")
        await provider.close()
    assert answers[0] == answers[1]
    assert answers[0].usage.completion_tokens > 0


async def test_what_was_said_before_a_cancel_is_kept_and_the_stream_is_closed(
    provider: Provider, server: SimulatedServer, spoken: asyncio.Event
) -> None:
    kept: list[ProviderAnswer] = []
    asked = structs.replace(chat("one two three", model="sim:ok+token_delay=0.1"), on_partial=kept.append)
    call = asyncio.create_task(provider.run(asked))
    await spoken.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (partial,) = kept
    text = partial.response.choices[0].message.content or ""
    assert text
    assert "A simulated answer to: one two three".startswith(text)
    assert partial.finish_reason == partial.response.choices[0].finish_reason == "cancelled"
    await asyncio.to_thread(server.wait_until, lambda seen: seen[-1].outcome == "client_gone")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_job_has_in_its_record_what_was_said(
    server: SimulatedServer, spoken: asyncio.Event, kind: str
) -> None:
    url = server.openai_url if kind == "openai" else server.anthropic_url
    async with calling(url, kind=kind, stream=True) as rig:
        job_id = await rig.submit_job(job("one two three four", model="sim:ok+token_delay=0.2"))
        await spoken.wait()
        await rig.cancel_job(job_id)
        info = await rig.wait(job_id)
    assert (info.status, info.result is not None) == ("cancelled", True)
    assert info.result
    assert info.result.text
    assert "A simulated answer to: one two three four".startswith(info.result.text)
    await asyncio.to_thread(server.wait_until, lambda seen: seen[-1].outcome == "client_gone")


async def test_a_cancel_before_the_first_word_keeps_nothing(provider: Provider, server: SimulatedServer) -> None:
    kept: list[ProviderAnswer] = []
    call = asyncio.create_task(provider.run(structs.replace(chat(model="sim:hang"), on_partial=kept.append)))
    await asyncio.to_thread(server.wait_until, lambda seen: len(seen) == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert kept == []


@pytest.mark.parametrize(
    ("model", "expected", "said"),
    [
        ("sim:cut", ProviderConnectionError, "connection failed"),
        ("sim:malformed", MalformedResponse, "no JSON object"),
        ("sim:no_choices", MalformedResponse, "the stream ended before the answer did"),
        ("sim:error_body", ProviderServerError, "HTTP 500: simulated error"),
        ("sim:500", ProviderServerError, "HTTP 500"),
        ("sim:429", RateLimited, "HTTP 429"),
    ],
)
async def test_what_breaks_a_stream_is_told_apart(
    provider: Provider, model: str, expected: type[JobError], said: str
) -> None:
    with pytest.raises(expected, match=said) as raised:
        await provider.run(chat(model=model))
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_does_not_stream_is_read_as_a_whole(
    server: SimulatedServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(_Reply, "_stream", _Reply._whole)
    provider = open_provider("p", entry(kind, server), {"KEY": CANARY})
    answer = await provider.run(chat("tell me"))
    assert answer.response.choices[0].message.content == "A simulated answer to: tell me"
    await provider.close()


@pytest.mark.parametrize(
    ("assembly", "event"),
    [
        (ChatAssembly, {"choices": ["x"]}),
        (ChatAssembly, {"choices": [{"delta": "x"}]}),
        (ChatAssembly, {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]}}]}),
        (MessageAssembly, {"type": "message_start", "message": "x"}),
        (MessageAssembly, {"type": "content_block_start", "content_block": 3}),
    ],
)
def test_a_piece_of_the_wrong_shape_is_the_providers_fault(assembly: type[Any], event: dict[str, Any]) -> None:
    caller = Caller(provider="p", credential=Credential(), sdk_errors=())
    with pytest.raises(MalformedResponse, match="a piece of the stream is not of its format"):
        caller._add(assembly(), event)


async def test_other_jobs_than_chats_are_not_streamed(server: SimulatedServer) -> None:
    provider = open_provider("p", entry("openai", server), {"KEY": CANARY})
    await provider.run(request("text_completion", prompt="once"))
    await provider.run(request("embedding", input="a"))
    await provider.close()
    assert not any(seen.body.get("stream") for seen in server.requests)


def test_tool_calls_come_in_pieces() -> None:
    assembly = ChatAssembly()
    first = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}}
    other = {"index": 1, "id": "call_2", "function": {"name": "time", "arguments": "{}"}}
    for delta in (
        {"role": "assistant", "content": None, "tool_calls": [first]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}, other]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
    ):
        assembly.add({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]})
    assert not assembly.is_complete
    assembly.add({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    assembly.add({"choices": [], "usage": {"total_tokens": 9}})
    assert assembly.is_complete
    body = assembly.body()
    assert body["usage"] == {"total_tokens": 9}
    (choice,) = body["choices"]
    assert choice["message"]["content"] is None
    calls = [(call["id"], call["function"]) for call in choice["message"]["tool_calls"]]
    assert calls == [
        ("call_1", {"name": "weather", "arguments": '{"city":"Paris"}'}),
        ("call_2", {"name": "time", "arguments": "{}"}),
    ]


def test_a_refusal_and_what_servers_add_are_kept() -> None:
    assembly = ChatAssembly()
    for delta in ({"refusal": "I can"}, {"refusal": "not"}, {"reasoning_content": "hm"}):
        assembly.add({"choices": [{"index": 0, "delta": delta}]})
    message = assembly.body()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": None, "refusal": "I cannot", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("pieces", "expected"), [(['{"city":', '"Paris"}'], {"city": "Paris"}), (['{"ci'], {}), (['{"a":' * 150], {})]
)
def test_a_tools_input_comes_in_pieces_and_half_of_one_is_none(pieces: list[str], expected: dict[str, str]) -> None:
    assembly = MessageAssembly()
    assembly.add({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}})
    assembly.add({"type": "ping"})
    block = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    assembly.add({"type": "content_block_start", "index": 0, "content_block": block})
    for piece in pieces:
        delta = {"type": "input_json_delta", "partial_json": piece}
        assembly.add({"type": "content_block_delta", "index": 0, "delta": delta})
    assert not assembly.is_complete
    assembly.add({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}})
    assembly.add({"type": "message_stop"})
    assert assembly.is_complete
    body = assembly.body()
    assert body["content"] == [{**block, "input": expected}]
    assert body["usage"] == {"input_tokens": 3, "output_tokens": 5}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, ProviderServerError),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}, RateLimited),
        ({"error": {"type": "server_error", "code": None, "message": "oops"}}, ProviderServerError),
        ({"error": {"code": 400, "message": "maximum context length is 8"}}, ContextLengthExceeded),
        ({"error": "out of cheese"}, ProviderServerError),
    ],
)
def test_an_error_inside_a_stream_is_what_it_would_have_been_as_a_status(
    event: dict[str, Any], expected: type[JobError]
) -> None:
    error = from_answer(status_of(error_in(event)), {}, event, provider="p", now=0.0)
    assert type(error) is expected
