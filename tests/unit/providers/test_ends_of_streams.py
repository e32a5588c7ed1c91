"""Streams whose connection does not end as it should: an answer that came whole is kept, half of one is a failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import msgspec
import pytest

from aiqueue.config import ProviderConfig
from aiqueue.errors import JobError
from aiqueue.protocol import ClaimedJob
from aiqueue.providers import remote
from aiqueue.providers.base import Provider, ProviderAnswer
from aiqueue.providers.openai_stream import ChatAssembly
from aiqueue.providers.registry import open_provider
from aiqueue.results import decode_result
from aiqueue.worker.runner import JobRunner
from tests.tools.provider_rig import RawServer
from tests.tools.turns import turns
from tests.unit.providers.conftest import CANARY, chat

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
PAYLOAD = b'{"messages":[{"role":"user","content":"hi"}],"config":{"max_tokens":9}}'
LAST_CHUNK = b"0\r\n\r\n"
TEXT = "All of it."

_BLOCK = {"type": "text", "text": ""}
_OPENAI: list[Any] = [
    {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": TEXT}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}},
    "[DONE]",
]
_ANTHROPIC: list[Any] = [
    {"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": _BLOCK},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]
#: By kind: the events of an answer, and how many of them make it whole.
STREAMS = {"openai": (_OPENAI, 2), "anthropic": (_ANTHROPIC, 5)}

End = Callable[[asyncio.StreamWriter], Awaitable[None]]


def lines(events: list[Any]) -> bytes:
    """Return the body of a stream."""
    return b"".join(
        b"data: " + (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n\n" for event in events
    )


def chunked(body: bytes) -> bytes:
    """Return the answer whose body begins with ``body``, and has not ended yet."""
    return HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body)


async def closes(writer: asyncio.StreamWriter) -> None:
    """End the connection, though a last chunk was due."""


async def stays(writer: asyncio.StreamWriter) -> None:
    """Say nothing more and hold the connection."""
    await asyncio.Event().wait()


async def ends_well(writer: asyncio.StreamWriter) -> None:
    """End the answer, and hold the connection for the next."""
    writer.write(LAST_CHUNK)
    await stays(writer)


@asynccontextmanager
async def saying(kind: str, said: bytes, end: End) -> AsyncIterator[tuple[Provider, RawServer]]:
    """A provider that streams, and its server, which answers with ``said`` and ends as ``end`` does."""

    async def reply(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(said)
        await writer.drain()
        await end(writer)

    server = RawServer(reply)
    async with server.listening() as url:
        url = url.removesuffix("/v1") if kind == "anthropic" else url
        entry = ProviderConfig(kind=kind, base_url=url, credential="KEY", stream=True)
        provider = open_provider("p", entry, {"KEY": CANARY})
        yield provider, server
        await provider.close()


def connections_of(provider: Provider) -> list[Any]:
    """Return the open connections of ``provider``."""
    transport: Any = provider._client._client._transport  # type: ignore[attr-defined]
    return list(transport._pool.connections)


async def outcome(kind: str, said: bytes, end: End, **config: Any) -> tuple[str, int]:
    """Return the text of the one answer and the tokens it counts; or the kind of failure, and -1."""
    async with saying(kind, said, end) as (provider, server):
        try:
            answer = await asyncio.wait_for(provider.run(chat(config=config)), 20)
        except JobError as error:
            return error.kind, -1
    assert server.requests == 1
    return answer.response.choices[0].message.content or "", answer.usage.total_tokens


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("end", [closes, stays, ends_well])
async def test_an_answer_whose_last_event_came_is_kept_however_its_connection_ends(kind: str, end: End) -> None:
    events, _ = STREAMS[kind]
    assert await outcome(kind, chunked(lines(events)), end) == (TEXT, 8)


@pytest.mark.parametrize("kind", STREAMS)
async def test_an_answer_is_whole_with_its_reason_to_end_and_half_without(kind: str) -> None:
    events, needed = STREAMS[kind]
    for came in range(1, len(events)):
        text, tokens = await outcome(kind, chunked(lines(events[:came])), closes)
        if came < needed:
            assert (text, tokens) == ("provider_connection", -1), came
        else:
            assert text == TEXT, came
            assert tokens == (0 if kind == "openai" and came == needed else 8)


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_whole_answer_does_not_wait_long_for_a_connection_that_stays_silent(kind: str) -> None:
    events, needed = STREAMS[kind]
    for came in range(needed, len(events)):
        text, tokens = await outcome(kind, chunked(lines(events[:came])), stays)
        assert (text, tokens) == (TEXT, 0 if kind == "openai" and came == needed else 8)


@pytest.mark.parametrize("kind", STREAMS)
async def test_no_wait_for_the_rest_of_a_stream_lasts_to_the_end_of_the_jobs_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_REST_S", "_END_S"):
        monkeypatch.setattr(remote, name, 3_600.0, raising=False)
    events, needed = STREAMS[kind]
    for came in (needed, len(events)):
        async with saying(kind, chunked(lines(events[:came])), stays) as (provider, _):
            runner = JobRunner(lambda _, p=provider: p, max_result_bytes=2**20)
            ended = await runner.run(ClaimedJob("a", 1, "chat_completion", "p", "m", 3_000, PAYLOAD))
        assert ended.failure is None, (came, ended.failure)
        assert decode_result(ended.result).text == TEXT


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_cancel_while_the_rest_of_a_stream_is_awaited_closes_the_connection(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited = asyncio.Event()
    reschedule = asyncio.Timeout.reschedule

    def seen(timeout: asyncio.Timeout, when: float | None) -> None:
        reschedule(timeout, when)
        if when is not None:
            awaited.set()

    monkeypatch.setattr(asyncio.Timeout, "reschedule", seen)
    monkeypatch.setattr(remote, "_REST_S", 3_600.0)
    events, needed = STREAMS[kind]
    kept: list[ProviderAnswer] = []
    async with saying(kind, chunked(lines(events[:needed])), stays) as (provider, _):
        call = asyncio.create_task(provider.run(msgspec.structs.replace(chat(), on_partial=kept.append)))
        await awaited.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert connections_of(provider) == []
    assert [answer.response.choices[0].message.content for answer in kept] == [TEXT]


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_that_is_cut_at_any_byte_is_whole_or_a_failure(kind: str) -> None:
    events, needed = STREAMS[kind]
    body, whole = lines(events), len(lines(events[:needed])) - len("\n\n")
    for length in [*range(whole - 30, whole, 7), *range(whole, len(body), 7)]:
        text, _ = await outcome(kind, HEAD + b"connection: close\r\n\r\n" + body[:length], closes)
        assert text == ("malformed_response" if length < whole else TEXT), body[:length]


async def test_one_choice_of_two_that_were_asked_for_is_half_an_answer() -> None:
    said = lines(_OPENAI[:2])
    assert await outcome("openai", chunked(said), closes, extra_body={"n": 2}) == ("provider_connection", -1)
    other = [{"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": "stop"}]}]
    assert await outcome("openai", chunked(said + lines(other)), closes, extra_body={"n": 2}) == (TEXT, 0)
    # Not every server knows more choices than one: where it says that this was all, it was.
    done = lines([*_OPENAI[:2], _OPENAI[-1]])
    assert await outcome("openai", chunked(done), closes, extra_body={"n": 2}) == (TEXT, 0)
    assert await outcome("openai", chunked(said) + LAST_CHUNK, stays, extra_body={"n": 2}) == (TEXT, 0)


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize(("end", "kept"), [(ends_well, 1), (stays, 0)])
async def test_a_connection_whose_answer_ended_serves_the_next_and_any_other_is_closed(
    kind: str, end: End, kept: int
) -> None:
    events, _ = STREAMS[kind]
    async with saying(kind, chunked(lines(events)), end) as (provider, _):
        await provider.run(chat())
        assert [connection.is_idle() for connection in connections_of(provider)] == [True] * kept


def _piece(content: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": "stop"}]}


async def test_a_reason_to_end_with_each_piece_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_REST_S", 0.0)
    first, go_on = asyncio.Event(), asyncio.Event()

    async def said() -> AsyncIterator[bytes]:
        yield lines([_piece("")])
        yield lines([_piece("All ")])
        first.set()
        await go_on.wait()
        yield lines([_piece("of it."), "[DONE]"])

    class Response:
        headers: ClassVar[dict[str, str]] = {"content-type": "text/event-stream"}

        def iter_bytes(self) -> AsyncIterator[bytes]:
            return said()

    @asynccontextmanager
    async def create(**_: object) -> AsyncIterator[Response]:
        yield Response()

    caller = remote.Caller(provider="p", credential=remote.Credential(), sdk_errors=())
    answer = asyncio.create_task(
        caller.stream(create, ChatAssembly(), read=lambda reply: reply.body, on_partial=None, within_s=60.0)  # type: ignore[arg-type,return-value]
    )
    await first.wait()
    await turns(20)
    assert not answer.done()
    go_on.set()
    assert (await answer)["choices"][0]["message"]["content"] == "All of it."


async def test_an_answer_whose_reason_to_end_came_with_each_piece_is_not_whole_without_its_last_event() -> None:
    body = lines([_piece("All "), _piece("of ")])
    assert await outcome("openai", chunked(body), closes) == ("provider_connection", -1)
