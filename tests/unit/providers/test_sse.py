"""Streams of events in all the ways that servers write them: the same events, and the same answer."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aiqueue.providers.sse import DONE, events_of, lines_of
from aiqueue.results import decode_result
from tests.tools.said_answers import outcome_of

TEXTS = ["One {", "}\u2028two\x85", "\u2029, data:three"]
_END: dict[str, Any] = {"delta": {}, "finish_reason": "stop"}
STREAMS: dict[str, list[Any]] = {
    "openai": [
        *({"choices": [{"index": 0, "delta": {"content": text}}]} for text in TEXTS),
        {"choices": [{"index": 0, **_END}]},
        {"choices": [], "usage": {"total_tokens": 8}},
        None,
    ],
    "anthropic": [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in TEXTS),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ],
}


def said(event: Any, *, indent: int | None = None) -> str:
    """Return the data of ``event``."""
    return DONE.decode() if event is None else json.dumps(event, ensure_ascii=False, indent=indent)


def plain(events: list[Any]) -> str:
    """Write ``events`` as most servers do."""
    return "".join(f"data: {said(event)}\n\n" for event in events)


def in_many_lines(events: list[Any], between: str = "\n") -> str:
    """Write each event in a line for each part of it."""
    return "".join("".join(f"data: {line}\n" for line in said(each, indent=2).split("\n")) + between for each in events)


STYLES: dict[str, Callable[[list[Any]], str]] = {
    "plain": plain,
    "a byte order mark": lambda events: codecs.BOM_UTF8.decode() + plain(events),
    "CR LF": lambda events: plain(events).replace("\n", "\r\n"),
    "CR": lambda events: plain(events).replace("\n", "\r"),
    "no space": lambda events: plain(events).replace("data: ", "data:"),
    "other fields": lambda events: plain(events).replace("data: ", "event: x\nid: 1\nretry: 9\n: data\ndata: "),
    "comments to keep it": lambda events: ": ping\n\n" + plain(events).replace("\n\n", "\n\n: ping\n\n:\n\n"),
    "empty data to keep it": lambda events: "data:\n\n" + plain(events).replace("\n\n", "\n\ndata: \n\ndata\n\n"),
    "many lines": in_many_lines,
    "many lines, CR LF": lambda events: in_many_lines(events).replace("\n", "\r\n"),
    "many lines, empty ones too": lambda events: in_many_lines(events).replace("data: ", "data:\ndata: "),
    "no blank lines": lambda events: plain(events).replace("\n\n", "\n"),
    "many lines, no blank ones": lambda events: in_many_lines(events, between=""),
    "no end of the last line": lambda events: plain(events).rstrip(),
    "one end of the last line": lambda events: plain(events)[:-1],
}


async def pieces_of(content: bytes, length: int) -> AsyncIterator[bytes]:
    """Yield ``content`` in pieces, and an empty one after each."""
    for at in range(0, len(content), length):
        yield content[at : at + length]
        yield b""


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
async def test_an_answer_is_the_same_however_its_events_are_written(
    kind: str, style: Callable[[list[Any]], str]
) -> None:
    outcome = await outcome_of(kind, style(STREAMS[kind]).encode(), stream=True)
    assert outcome.failure is None, outcome.failure
    result = decode_result(outcome.result)
    assert (result.text, result.tokens, result.finish_reason) == ("".join(TEXTS), 8, "stop")


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("length", [1, 2, 3, 7, 1_000_000])
async def test_events_are_the_same_in_whatever_pieces_they_come(
    kind: str, style: Callable[[list[Any]], str], length: int
) -> None:
    events = [data async for data in events_of(pieces_of(style(STREAMS[kind]).encode(), length))]
    assert [None if data == DONE else json.loads(data) for data in events] == STREAMS[kind]


async def test_the_end_is_told_before_the_line_behind_it() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: {}\ndata: [DONE]\n"
        raise AssertionError("read on")

    events = events_of(pieces())
    assert [await anext(events), await anext(events)] == [b"{}", DONE]


@pytest.mark.parametrize("length", [1, 2, 3, 100])
async def test_a_line_ends_with_cr_lf_or_both(length: int) -> None:
    content = b"a\r\nb\rc\nd\n\re\r\n\r\nf\r\r\ng"
    lines = [line async for line in lines_of(pieces_of(content, length))]
    assert lines == [b"a", b"b", b"c", b"d", b"", b"e", b"", b"f", b"", b"g"]
