"""Tool calls in pieces, as each kind of server cuts and numbers them: the calls of an answer without streaming."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from aiqueue.results import decode_result
from tests.tools.said_answers import as_stream, outcome_of

Json = dict[str, Any]
Style = Callable[[int, int, Json], Json]


def function(name: str, call_id: Any, **more: Any) -> Json:
    """Return a call of a function as it comes without streaming."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": f'{{"of":"{name}"}}'}, **more}


CALLS: dict[str, list[Json]] = {
    "one": [function("f", "a")],
    "two": [function("f", "a"), function("g", "b")],
    "two of one name": [function("f", "a"), function("f", "b")],
    "ids that are numbers": [function("f", 7), function("g", 0)],
    "further fields": [
        function("f", "a", extra_content={"google": {"thought_signature": "SIG"}}),
        function("g", "b", note="own", rank=2),
    ],
    "further fields of the function": [
        {**function("f", "a"), "function": {"name": "f", "arguments": "{}", "strict": True, "server": "own"}}
    ],
    "custom": [
        {"id": "a", "type": "custom", "custom": {"name": "run", "input": "print(1)"}},
        {"id": "b", "type": "custom", "custom": {"name": "run", "input": "print(2)"}},
    ],
    "custom after a function": [
        function("f", "a"),
        {"id": "b", "type": "custom", "custom": {"name": "run", "input": "print(1)"}},
    ],
}

#: What a server makes of a piece: which call it is of, which part of that, and the piece as OpenAI would have it.
STYLES: dict[str, Style] = {
    "an index in each": lambda call, part, piece: {"index": call, **piece},
    "no index": lambda call, part, piece: piece,
    "index null": lambda call, part, piece: {"index": None, **piece},
    "index null, id empty in the later ones": lambda call, part, piece: {"index": None, "id": "", **piece},
    "an index in the first only": lambda call, part, piece: {"index": call, **piece} if part == 0 else piece,
    "all at index 0": lambda call, part, piece: {"index": 0, **piece},
    "other ids in the later ones": lambda call, part, piece: {"index": call, "id": f"x{part}", **piece},
}


#: Servers that name the call in each piece: vLLM does so, with ids of their own, for a function that was asked for.
NAMING: dict[str, Style] = {
    "index": lambda call, part, piece: {"index": call, **piece},
    "all at index 0": lambda call, part, piece: {"index": 0, **piece},
    "no index": lambda call, part, piece: piece,
}
IDS: dict[str, Style] = {
    "its id in each": lambda call, part, piece: piece,
    "its id in the first": lambda call, part, piece: piece if part == 0 else _without_id(piece),
    "an id of its own in each": lambda call, part, piece: piece if part == 0 else {**piece, "id": f"x{call}{part}"},
    "no id": lambda call, part, piece: _without_id(piece),
}


def _without_id(piece: Json) -> Json:
    return {name: value for name, value in piece.items() if name != "id"}


def cut(call: Json) -> list[Json]:
    """Return the pieces of ``call``: all but its long text in the first, that text in three."""
    kind = call["type"]
    text = "arguments" if kind == "function" else "input"
    said = call[kind][text]
    first = {**call, kind: {**call[kind], text: said[:1]}}
    return [first, {kind: {text: said[1:6]}}, {kind: {text: said[6:]}}]


async def read(pieces: list[Json], *, at_once: bool = False) -> list[Json]:
    """Return the calls of an answer that streams ``pieces``, each in an event of its own unless ``at_once``."""
    lists = [pieces] if at_once else [[piece] for piece in pieces]
    deltas: list[Json] = [{"role": "assistant"}, *({"tool_calls": each} for each in lists)]
    events: list[Json] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    outcome = await outcome_of("openai", as_stream(json.dumps(event).encode() for event in events), stream=True)
    assert outcome.failure is None, outcome.failure
    return decode_result(outcome.result).response.choices[0].message.tool_calls or []


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("at_once", [False, True])
async def test_calls_in_pieces_are_those_of_an_answer_without_streaming(
    calls: list[Json], style: Style, at_once: bool
) -> None:
    pieces = [style(number, part, piece) for number, call in enumerate(calls) for part, piece in enumerate(cut(call))]
    assert await read(pieces, at_once=at_once) == calls


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
async def test_calls_that_come_whole_are_kept_apart(calls: list[Json], style: Style) -> None:
    assert await read([style(number, 0, call) for number, call in enumerate(calls)]) == calls


async def test_whole_calls_with_neither_ids_nor_indexes_are_told_apart_by_their_names() -> None:
    calls = [{**function(name, None), "id": None} for name in ("f", "g", "f")]
    assert await read([{"function": call["function"]} for call in calls]) == calls


async def test_calls_whose_pieces_come_in_turn_are_told_apart_by_their_indexes() -> None:
    calls = CALLS["two"]
    cuts = [[{"index": number, **piece} for piece in cut(call)] for number, call in enumerate(calls)]
    assert await read([piece for pair in zip(*cuts, strict=True) for piece in pair]) == calls


def named_pieces(call: Json, style: Style, ids: Style, number: int, *, ends_blank: bool) -> list[Json]:
    """Return the pieces of ``call``, each of them a whole call but for its arguments, of which it has a part."""
    parts = [call["function"]["arguments"][at : at + 4] for at in range(0, len(call["function"]["arguments"]), 4)]
    said = [*parts, ""] if ends_blank else parts
    pieces = [{**call, "function": {**call["function"], "arguments": part}} for part in said]
    return [style(number, part, ids(number, part, piece)) for part, piece in enumerate(pieces)]


@pytest.mark.parametrize("ends_blank", [False, True])
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
@pytest.mark.parametrize("style", NAMING.values(), ids=NAMING)
@pytest.mark.parametrize("names", ["f", "fg", "ff"])
async def test_a_call_that_each_of_its_pieces_names_is_one_call(
    names: str, style: Style, ids: Style, ends_blank: bool
) -> None:
    text = json.dumps({"of": 'a "}" and \\', "in": [{}, ["]"]]})
    calls = [
        {"id": f"{name}{at}", "type": "function", "function": {"name": f"get_{name}", "arguments": text}, "state": "s"}
        for at, name in enumerate(names)
    ]
    cuts = [named_pieces(call, style, ids, at, ends_blank=ends_blank) for at, call in enumerate(calls)]
    found = await read([piece for pieces in cuts for piece in pieces])
    assert [_without_id(call) for call in found] == [_without_id(call) for call in calls]
    if ids is IDS["no id"]:
        assert {call["id"] for call in found} == {None}
    elif ids is not IDS["an id of its own in each"]:
        assert [call["id"] for call in found] == [call["id"] for call in calls]


@pytest.mark.parametrize("ids", ["ab", ["", ""]])
async def test_whole_calls_that_all_have_one_index_are_kept_apart_by_their_ends(ids: list[str]) -> None:
    texts = ['{"a": 1}', '{"a": "}{"}', "{broken]"]
    pieces = [{"index": 0, "id": each, "function": {"name": "f", "arguments": text}} for text in texts for each in ids]
    found = await read(pieces)
    assert [(call["id"], call["function"]["arguments"]) for call in found] == [
        (each or None, text) for text in texts for each in ids
    ]


async def test_calls_without_arguments_are_kept_apart_by_their_ids_and_names() -> None:
    calls = [
        {"id": at, "type": "function", "function": {"name": name, "arguments": ""}} for at, name in enumerate("fg")
    ]
    assert await read([{"index": 0, **call} for call in calls]) == await read(calls) == calls


@pytest.mark.parametrize("index", [{"index": 0}, {}])
async def test_a_name_may_come_in_parts(index: Json) -> None:
    functions = [{"name": "get_"}, {"name": "time", "arguments": ""}, {"arguments": "{}"}]
    pieces = [{**index, "function": function} for function in functions]
    whole = {"type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    assert await read([{"id": "a", **pieces[0]}, *pieces[1:]]) == [{"id": "a", **whole}]
    assert await read(pieces) == [{"id": None, **whole}]
