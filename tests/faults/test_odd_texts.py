"""Providers that answer with texts and numbers that can't be encoded: the job ends, and the one beside it too."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tools.provider_rig import RawServer, calling, chat

_LIMIT_S = 30.0
_GOOD = json.dumps(
    {
        "id": "x",
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
    }
).encode()


class TwoFaced(RawServer):
    """Answers the model ``odd`` with what the test wants, and any other as it should."""

    def __init__(self) -> None:
        super().__init__(self._say)
        self.status, self.odd, self.headers = 200, b"", b""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        asked = json.loads(await reader.readexactly(length))
        await self._say(writer, 0, odd=asked["model"] == "odd")

    async def _say(self, writer: asyncio.StreamWriter, number: int, *, odd: bool = False) -> None:
        status, body, headers = (self.status, self.odd, self.headers) if odd else (200, _GOOD, b"")
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + headers + b"\r\n" + body)
        await writer.drain()


async def _both_end(server: TwoFaced) -> tuple[str, str]:
    """Return how a job with the odd answer and one beside it ended; a worker that is stuck makes this time out."""
    async with server.listening() as url, calling(url, slots=4) as rig, asyncio.timeout(_LIMIT_S):
        odd, beside = await rig.submit_jobs([chat(model="odd"), chat(model="good")], {"max_retries": 0})
        ends = await rig.wait_all([odd, beside])
        after = await rig.submit_job(chat(model="good"))
        assert (await rig.wait(after)).status == "completed"
        return ends[0].status, ends[1].status


async def test_half_a_surrogate_pair_in_an_error_fails_the_job_and_no_worker() -> None:
    server = TwoFaced()
    server.status, server.odd = 400, b'{"error":{"message":"cut in an emoji \\ud83d"}}'
    assert await _both_end(server) == ("failed", "completed")


async def test_half_a_surrogate_pair_in_an_answer_is_replaced_and_the_answer_kept() -> None:
    server = TwoFaced()
    server.odd = _GOOD.replace(b"fine", b"cut \\ud83d")
    async with server.listening() as url, calling(url) as rig, asyncio.timeout(_LIMIT_S):
        result = await rig.submit_job_with_callback(chat(model="odd"))
        assert result.response.choices[0].message.content == "cut \ufffd"


async def test_log_probabilities_that_are_no_numbers_are_null_and_the_answer_kept() -> None:
    server = TwoFaced()
    server.odd = _GOOD[:-1] + b', "logprobs": [-Infinity, NaN, 1e400]}'
    async with server.listening() as url, calling(url) as rig, asyncio.timeout(_LIMIT_S):
        result = await rig.submit_job_with_callback(chat(model="odd"))
        assert result.raw["logprobs"] == [None, None, None]


_odd_text = st.sampled_from(
    [r"\ud83d", r"\ude00\ud83d", r"\u0000", r"\uffff", "a" * 20_000, r"\u202e", r"\ud83d\ude00", "\x7f", "ä"]
)
_odd_number = st.sampled_from(["1e400", "-1e400", "NaN", "Infinity", "9" * 25, "-" + "9" * 25, "-1", "0.5", "1e308"])
_odd_json = st.recursive(
    _odd_text.map('"{}"'.format) | _odd_number | st.sampled_from(["null", "true", "[]", "{}"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
    | st.dictionaries(
        st.sampled_from(
            ["error", "message", "code", "type", "detail", "request_id", "choices", "usage", "id", "model", "content",
             "prompt_tokens", "total_tokens", "finish_reason", "index", "role", "text", r"\ud83d"]
        ),
        inner,
        max_size=4,
    ).map(lambda items: "{" + ",".join(f'"{key}":{value}' for key, value in items.items()) + "}"),
    max_leaves=8,
)  # fmt: skip
_usage = st.tuples(_odd_number, _odd_number, _odd_number).map(
    lambda counts: '{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}}'.format(*counts)
)


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """Return an answer: any odd JSON, or one of the format with something odd in it."""
    text = draw(_odd_text)
    shaped = (
        f'{{"id":"{text}","model":"{text}","choices":[{{"message":{{"role":"assistant","content":"{text}"}},'
        f'"finish_reason":"stop"}}],"usage":{draw(_usage)},"extra":{draw(_odd_json)}}}'
    )
    return draw(st.sampled_from([shaped, draw(_odd_json), f'{{"error":{draw(_odd_json)}}}', "{" + text, ""]))


@pytest.mark.slow
@given(
    status=st.sampled_from([200, 200, 400, 404, 408, 422, 429, 500, 503, 529, 599]),
    body=bodies(),
    wait=st.sampled_from(["", "0", "-5", "NaN", "1e400", "0.001", "Thu, 01 Jan 1970 00:00:00 GMT", "\xff"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_whatever_a_provider_says_its_job_ends_and_so_do_others(status: int, body: str, wait: str) -> None:
    server = TwoFaced()
    server.status, server.odd = status, body.encode("utf-8", "surrogatepass")
    server.headers = f"retry-after-ms: {wait}\r\nx-request-id: {wait}\r\n".encode("latin-1") if wait else b""
    odd, beside = await _both_end_soon(server)
    assert odd in {"completed", "failed", "dead_letter"}
    assert beside == "completed"


async def _both_end_soon(server: TwoFaced) -> tuple[str, str]:
    """As ``_both_end``; a job that is told to wait is told so for ever, and cancelled."""
    async with server.listening() as url, calling(url, slots=4) as rig, asyncio.timeout(_LIMIT_S):
        odd, beside = await rig.submit_jobs(
            [chat(model="odd"), chat(model="good")], {"max_retries": 0, "on_gate": "fail"}
        )
        return (await rig.wait(odd)).status, (await rig.wait(beside)).status
