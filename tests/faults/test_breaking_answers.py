"""Answers that never come, stop half way or are no answers: the job's limit holds, nothing partial is a result."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from aiqueue.testing.simulated_provider import SimulatedServer
from aiqueue.views import JobInfo
from tests.tools.provider_rig import RawServer, calling, chat

_LIMIT_MS = 300
_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}).encode()

Reply = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


def json_head(length: int, content_type: str = "application/json") -> bytes:
    """Return the head of an answer."""
    return f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n".encode()


async def says_nothing(writer: asyncio.StreamWriter, number: int) -> None:
    await asyncio.Event().wait()


async def stalls_behind_its_headers(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(json_head(1_000))
    await asyncio.Event().wait()


async def drips(writer: asyncio.StreamWriter, number: int) -> None:
    """Never silent for long, and never at its end."""
    writer.write(json_head(10**6))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def resets_in_the_middle(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(json_head(1_000) + b'{"id": "x", "choices": [')
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def sends_half_a_json(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(json_head(len(_WHOLE) // 2) + _WHOLE[: len(_WHOLE) // 2])
    await writer.drain()


async def sends_a_web_page(writer: asyncio.StreamWriter, number: int) -> None:
    page = b"<html>The proxy says hello</html>"
    writer.write(json_head(len(page), "text/html") + page)
    await writer.drain()


def token_event(word: str) -> bytes:
    """One piece of a stream, as a chunk of HTTP."""
    event = f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': word}}]})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


async def cuts_a_stream_before_its_done(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(_CHUNKED + token_event("half of") + token_event(" an answer"))
    await writer.drain()


async def ends_a_stream_before_its_done(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(_CHUNKED + token_event("half of") + b"0\r\n\r\n")
    await writer.drain()


async def end_of_a_job(reply: Reply) -> tuple[JobInfo, RawServer]:
    """Let a job with one retry run into ``reply`` twice."""
    server = RawServer(reply)
    async with server.listening() as url, calling(url) as rig:
        job_id = await rig.submit_job(chat(), {"max_retries": 1, "timeout": _LIMIT_MS})
        info = await rig.wait(job_id)
        stats = await rig.get_stats()
    assert (info.status, info.attempt, server.requests) == ("dead_letter", 2, 2)
    assert info.result is None, "a partial answer was stored"
    assert (stats.processing_jobs, stats.completed_jobs) == (0, 0)
    return info, server


@pytest.mark.parametrize("reply", [says_nothing, stalls_behind_its_headers, drips])
async def test_an_answer_that_does_not_come_ends_with_the_jobs_limit_and_its_connection_is_closed(reply: Reply) -> None:
    info, server = await end_of_a_job(reply)
    assert info.error is not None
    assert info.error.kind == "timeout"
    assert server.hung_up == 2


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (resets_in_the_middle, "provider_connection"),
        (cuts_a_stream_before_its_done, "provider_connection"),
        (sends_half_a_json, "malformed_response"),
        (sends_a_web_page, "malformed_response"),
        (ends_a_stream_before_its_done, "malformed_response"),
    ],
)
async def test_half_an_answer_is_a_failure_that_says_what_came(reply: Reply, kind: str) -> None:
    info, _ = await end_of_a_job(reply)
    assert info.error is not None
    assert info.error.kind == kind


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("hang", "timeout"),
        ("cut", "provider_connection"),
        ("reset", "provider_connection"),
        ("malformed", "malformed_response"),
        ("error_body", "provider_server_error"),
        ("no_choices", "malformed_response"),
    ],
)
async def test_each_fault_of_an_answer_is_told_apart_and_passes_with_it(kind: str, fault: str, expected: str) -> None:
    with SimulatedServer() as provider:
        url = provider.openai_url if kind == "openai" else provider.anthropic_url
        async with calling(url, kind=kind) as rig:
            stays, passes = await rig.submit_jobs(
                [chat("stays", f"sim:{fault}"), chat("passes", f"sim:{fault},ok")],
                {"max_retries": 1, "timeout": _LIMIT_MS * 2},
            )
            infos = await rig.wait_all([stays, passes])
        assert [(info.status, info.attempt) for info in infos] == [("dead_letter", 2), ("completed", 2)]
        assert infos[0].error is not None
        assert infos[0].error.kind == infos[1].attempts[0].error.kind == expected  # type: ignore[union-attr]
        assert infos[0].result is None
        assert len(provider.requests) == 4


async def test_a_socket_that_takes_connections_and_reads_nothing_holds_no_job_beyond_its_limit() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        async with calling(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1") as rig:
            ids = await rig.submit_jobs(
                [chat(str(number)) for number in range(4)], {"max_retries": 0, "timeout": _LIMIT_MS}
            )
            infos = await rig.wait_all(ids)
    assert {(info.status, info.error.kind if info.error else "") for info in infos} == {("dead_letter", "timeout")}
