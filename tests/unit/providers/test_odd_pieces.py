"""Streams with anything in place of any part: an answer with the text that came, or a failure that says whose it is."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue.protocol import Outcome
from aiqueue.providers.anthropic_stream import MessageAssembly
from aiqueue.results import JobResult, decode_result
from tests.tools.said_answers import as_stream, outcome_of

TEXTS = ["Good ", "text ", "came."]
ARGUMENTS = ['{"city":', '"Paris"}']
GONE = object()
Path = tuple[str | int, ...]


def _openai() -> list[dict[str, Any]]:
    def of(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    first = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS[0]}}
    return [
        of({"role": "assistant", "content": TEXTS[0]}),
        *(of({"content": text}) for text in TEXTS[1:]),
        of({"tool_calls": [first]}),
        of({"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS[1]}}]}),
        of({}, "tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}},
    ]


def _anthropic() -> list[dict[str, Any]]:
    def of(index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": delta}

    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    return [
        {"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(of(0, {"type": "text_delta", "text": text}) for text in TEXTS),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": tool},
        *(of(1, {"type": "input_json_delta", "partial_json": part}) for part in ARGUMENTS),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]


STREAMS = {"openai": _openai(), "anthropic": _anthropic()}


def _paths(value: Any, before: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*before, name)
            yield from _paths(item, (*before, name))


def _changed(stream: list[Any], path: Path, value: object) -> list[Any]:
    stream = copy.deepcopy(stream)
    place: Any = stream
    for step in path[:-1]:
        place = place[step]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return stream


PLACES = [(kind, path) for kind, stream in STREAMS.items() for path in _paths(stream)]
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([-(2**63), 2**31, 2**53, 10**30, 0.0, 1.5, 1e308])
    | st.sampled_from(["", "x", "0", "text", "text_delta", "message_stop", "content_block_start", "stop"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "index", "delta", "content", "id", "usage", "function", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


async def _outcome(kind: str, stream: list[Any]) -> Outcome:
    return await outcome_of(kind, as_stream(json.dumps(event).encode() for event in stream), stream=True)


def _readings(parts: list[str], value: object) -> set[str]:
    """Return what may be read where at most one of ``parts`` was left out, or was ``value`` instead."""
    return {"".join(parts)} | {
        "".join([*parts[:at], each, *parts[at + 1 :]])
        for at in range(len(parts))
        for each in ("", value)
        if isinstance(each, str)
    }


def _check_reading(result: JobResult, path: Path, value: object) -> None:
    if "type" in path or isinstance(value, dict | list):  # it says that it is something else, which may be passed over
        return
    assert result.text in _readings(TEXTS, value), result.text
    for call in result.response.choices[0].message.tool_calls or ():
        said = call["function"]["arguments"].replace('": "', '":"')
        assert said in _readings(ARGUMENTS, value) | {"{}", *ARGUMENTS} or "input" in path, said


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=_json | st.just(GONE))
def test_whatever_stands_in_a_piece_is_read_as_it_is_or_is_malformed(place: tuple[str, Path], value: object) -> None:
    kind, path = place
    outcome = asyncio.run(_outcome(kind, _changed(STREAMS[kind], path, value)))
    if outcome.failure is not None:
        assert outcome.failure.kind == "malformed_response", (kind, path, value, outcome.failure)
    else:
        _check_reading(decode_result(outcome.result), path, value)


@pytest.mark.parametrize("kind", STREAMS)
async def test_the_stream_that_is_changed_is_a_good_one(kind: str) -> None:
    result = decode_result((await _outcome(kind, STREAMS[kind])).result)
    assert (result.text, result.tokens, result.finish_reason) == ("".join(TEXTS), 8, "tool_calls")
    (call,) = result.response.choices[0].message.tool_calls or ()
    assert (call["id"], call["function"]["arguments"]) == ("t", "".join(ARGUMENTS))


ODD: list[tuple[str, Path, object, str]] = [
    ("openai", (1, "choices", 0, "delta", "content"), 7, "content must be a text, not int"),
    ("openai", (1, "choices", 0, "delta"), 0, "delta must be an object, not int"),
    ("openai", (1, "choices"), "x", "choices must be a list of objects"),
    ("openai", (3, "choices", 0, "delta", "tool_calls", 0, "function", "name"), {}, "name must be a text, not dict"),
    *(("openai", (1, "choices", 0, "index"), odd, "index must be") for odd in (-1, True, 1.5, "0", [], 2**31, 10**30)),
    *(
        ("openai", (4, "choices", 0, "delta", "tool_calls", 0, "index"), odd, "index must be")
        for odd in (-1, True, "0", {}, 10**30)
    ),
    *(("anthropic", (3, "index"), odd, "index must be") for odd in (-1, False, None, 0.0, "0", [], 10**30, GONE)),
    *(("anthropic", (1, "content_block"), odd, "begins without a type") for odd in (GONE, None, {}, {"text": ""})),
    ("anthropic", (3, "index"), 9, "block 9 goes on and never began"),
    ("anthropic", (6, "index"), 0, "block 0 begins twice"),
    ("anthropic", (3, "delta", "text"), 7, "text must be a text, not int"),
    ("anthropic", (1, "content_block", "text"), 7, "text must be a text, not int"),
    ("anthropic", (7, "delta", "partial_json"), {"a": 1}, "partial_json must be a text, not dict"),
    ("anthropic", (0, "message"), [["a", 1]], "message must be an object, not list"),
]


@pytest.mark.parametrize(("kind", "path", "value", "said"), ODD)
async def test_a_piece_that_can_not_be_placed_is_malformed_and_says_what_is_wrong(
    kind: str, path: Path, value: object, said: str
) -> None:
    failure = (await _outcome(kind, _changed(STREAMS[kind], path, value))).failure
    assert failure is not None
    assert failure.kind == "malformed_response"
    assert said in failure.message


async def test_a_block_whose_text_is_none_is_malformed_in_a_whole_answer_too() -> None:
    content = b'{"content":[{"type":"text","text":7},{"type":"text","text":"x"}]}'
    failure = (await outcome_of("anthropic", content)).failure
    assert failure is not None
    assert failure.kind == "malformed_response"
    result = decode_result((await outcome_of("anthropic", content.replace(b"7", b"null"))).result)
    assert result.text == "x"


def _halves(text: str) -> list[str]:
    """Return each unit of UTF-16 in ``text`` as a piece: a character beyond them comes in two halves."""
    units = text.encode("utf-16-le")
    return [units[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2)]


SPLIT = "\N{GRINNING FACE} and \N{MUSICAL SYMBOL G CLEF}"
#: By kind, of some pieces by their number: where a text stands, and another to say there in as many pieces as can be.
SAID_IN_HALVES: dict[str, dict[int, tuple[Path, str]]] = {
    "openai": {
        1: (("choices", 0, "delta", "content"), SPLIT),
        4: (("choices", 0, "delta", "tool_calls", 0, "function", "arguments"), f'"{SPLIT}"}}'),
    },
    "anthropic": {3: (("delta", "text"), SPLIT), 8: (("delta", "partial_json"), f'"{SPLIT}"}}')},
}


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_character_that_comes_in_two_pieces_is_one_wherever_it_stands(kind: str) -> None:
    stream: list[Any] = []
    for number, piece in enumerate(STREAMS[kind]):
        if number in SAID_IN_HALVES[kind]:
            path, said = SAID_IN_HALVES[kind][number]
            stream += [_changed([piece], (0, *path), half)[0] for half in _halves(said)]
        else:
            stream.append(piece)
    result = decode_result((await _outcome(kind, stream)).result)
    assert result.text == TEXTS[0] + SPLIT + TEXTS[2]
    (call,) = result.response.choices[0].message.tool_calls or ()
    assert json.loads(call["function"]["arguments"]) == {"city": SPLIT}


@pytest.mark.parametrize("begun", [{}, {"a": 1}, GONE])
@pytest.mark.parametrize("pieces", [[], [""], ["", ""], ['{"b":', "2}"], ["", '{"b":2}', ""]])
def test_a_tools_input_is_that_of_its_pieces_or_else_of_its_beginning(begun: Any, pieces: list[str]) -> None:
    assembly = MessageAssembly()
    block = {"type": "tool_use"} | ({} if begun is GONE else {"input": begun})
    assembly.add({"type": "content_block_start", "index": 0, "content_block": block})
    for piece in pieces:
        delta = {"type": "input_json_delta", "partial_json": piece}
        assembly.add({"type": "content_block_delta", "index": 0, "delta": delta})
    (whole,) = assembly.body()["content"]
    assert whole.get("input", {}) == ({"b": 2} if any(pieces) else {} if begun is GONE else begun)


@pytest.mark.parametrize("later", [None, GONE, ""])
async def test_a_reason_to_stop_is_not_taken_back_by_a_later_event_without(later: Any) -> None:
    delta = {} if later is GONE else {"stop_reason": later}
    *events, last = _anthropic()
    stream = [*events, {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 6}}, last]
    result = decode_result((await _outcome("anthropic", stream)).result)
    assert (result.finish_reason, result.tokens) == ("tool_calls", 9)


def test_a_count_that_is_null_at_the_end_leaves_the_one_before() -> None:
    assembly = MessageAssembly()
    assembly.add({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}})
    assembly.add({"type": "message_delta", "delta": {}, "usage": {"input_tokens": None, "output_tokens": 5}})
    assert assembly.body()["usage"] == {"input_tokens": 3, "output_tokens": 5}
