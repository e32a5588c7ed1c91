"""What a provider sends without end: read in time that grows as its length does. Work is counted, not timed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aiqueue.providers import openai_calls
from aiqueue.providers.anthropic_stream import MessageAssembly
from aiqueue.providers.openai_stream import ChatAssembly
from aiqueue.providers.rate_limits import MAX_CHARS, duration_s, retry_after_s
from aiqueue.providers.sse import events_of, lines_of

PIECES = 2_000
NOW = 1_700_000_000.0
HEADERS = ("retry-after-ms", "retry-after", "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset")


class Copied:
    """How much was copied to put pieces together one by one."""

    total = 0


class Bytes(bytes):
    """A piece that tells what is copied when it is added to what came before."""

    def __radd__(self, before: bytes) -> bytes:
        Copied.total += len(before) + len(self)
        return bytes(before) + bytes(self)


class Text(str):
    """The same of text."""

    __slots__ = ()

    def __radd__(self, before: str) -> str:
        Copied.total += len(before) + len(self)
        return str(before) + str(self)


class Usage(dict[str, int]):
    """Counts what a provider says that it used, and what is copied of it."""

    def __or__(self, other: Any) -> Any:
        Copied.total += len(self) + len(other)
        return Usage({**self, **other})


@pytest.fixture(autouse=True)
def _nothing_copied() -> None:
    Copied.total = 0


async def many(piece: bytes, end: bytes) -> AsyncIterator[bytes]:
    """A stream of the same piece again and again, and then ``end``."""
    for _ in range(PIECES):
        yield Bytes(piece)
    yield end


async def test_a_line_in_many_pieces_is_put_together_once() -> None:
    assert [line async for line in lines_of(many(b"x", b"\ny"))] == [b"x" * PIECES, b"y"]
    assert Copied.total <= 4 * PIECES


async def test_an_event_in_many_lines_is_put_together_once() -> None:
    (event,) = [event async for event in events_of(many(b"data: }\n", b"data: x"))]
    assert event == b"}\n" * PIECES + b"x"
    assert Copied.total <= 4 * PIECES


def test_a_tool_call_in_many_pieces_is_put_together_once() -> None:
    assembly = ChatAssembly()
    for _ in range(PIECES):
        function = {"arguments": Text("x")}
        assembly.add({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": function}]}}]})
    (call,) = assembly.body()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == "x" * PIECES
    assert Copied.total <= 4 * PIECES


def test_a_tool_call_that_each_of_many_pieces_names_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    marks = openai_calls._MARKS

    class Counting:
        def findall(self, text: str) -> list[str]:
            read.append(len(text))
            return marks.findall(text)

    monkeypatch.setattr(openai_calls, "_MARKS", Counting())
    assembly = ChatAssembly()
    for part in ['{"a":[', *(["{},"] * PIECES), "{}]}"]:
        call = {"index": 0, "id": f"c{len(read)}", "function": {"name": "f", "arguments": part}}
        assembly.add({"choices": [{"delta": {"tool_calls": [call]}}]})
    assert len(assembly.body()["choices"][0]["message"]["tool_calls"]) == 1
    assert sum(read) <= 4 * PIECES


def test_many_counts_of_what_was_used_are_not_copied_for_each() -> None:
    assembly = MessageAssembly()
    assembly.add({"type": "message_start", "message": {"id": "m", "usage": Usage(first=1)}})
    for number in range(PIECES):
        assembly.add({"type": "message_delta", "usage": {f"u{number}": number}})
    assert len(assembly.body()["usage"]) == PIECES + 1
    assert Copied.total <= 4 * PIECES


class Headers(dict[str, str]):
    """Headers that count how many of them are looked at; as in httpx, asking for one looks at them all."""

    looked_at = 0

    def get(self, name: str, default: Any = None) -> Any:
        """Return one header."""
        self.looked_at += len(self)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        self.looked_at += len(self)
        return super().__iter__()


def test_thousands_of_headers_are_looked_through_a_few_times() -> None:
    headers = Headers({f"x-ratelimit-reset-{number}": "7s" for number in range(PIECES)})
    assert retry_after_s(headers, now=NOW) == 7.0
    assert headers.looked_at <= 8 * PIECES


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("unit", ["1", "9.", " ", "1s", "Mon, ", "(", "2023-", "e9", "x"])
@pytest.mark.parametrize("end", ["", "x"])
@pytest.mark.parametrize("length", [MAX_CHARS + 1, 1_000_000])
def test_a_value_that_is_longer_than_any_wait_is_not_read(header: str, unit: str, end: str, length: int) -> None:
    text = (unit * (length // len(unit) + 1))[:length] + end
    remaining = {"x-ratelimit-remaining-tokens": text, "anthropic-ratelimit-tokens-remaining": text}
    assert retry_after_s({header: text, **remaining}, now=NOW) is None
    assert duration_s(text) is None


def test_a_remaining_count_that_is_too_long_uses_up_no_limit() -> None:
    headers = {
        "x-ratelimit-reset-tokens": "30s",
        "x-ratelimit-remaining-tokens": "0" * (MAX_CHARS + 1),
        "x-ratelimit-reset-requests": "2s",
    }
    assert retry_after_s(headers, now=NOW) == 2.0
