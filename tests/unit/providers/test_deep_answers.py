"""Answers whose JSON is nested deep: read up to a depth that everything behind can read too, and refused beyond it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.providers.anthropic_stream import MessageAssembly
from aiqueue.providers.provider_json import MAX_DEPTH, TooDeep, read_json
from aiqueue.results import decode_result
from aiqueue.texts import depth_of
from tests.tools.said_answers import as_stream, outcome_of

DEPTHS = [2, 150, *range(195, 203), 300, 460, 490, 600, 900, 950, 985, 2_000, 100_000]
#: Each is nested deeper by what stands in place of ``@``.
WHOLE = {
    "openai": [
        '{"model":"m","choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"extra":@}',
        '{"model":"m","choices":[{"message":{"content":"cut \\ud83d"},"finish_reason":"stop"}],"extra":@}',
        '{"model":"m","choices":[{"message":{"content":"x","tool_calls":[{"id":"t","function":@}]}}]}',
        '{"model":"m","choices":[{"message":{"content":"x"},"logprobs":@}],"usage":{"details":@}}',
    ],
    "anthropic": [
        '{"model":"m","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","extra":@}',
        '{"model":"m","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":@}}],"stop_reason":"tool_use"}',
        '{"content":[{"type":"tool_use","id":"t","name":"\\ud83d","input":{"a":@}}],"usage":{"details":@}}',
        '{"content":[{"type":"web_search","result":@}]}',
    ],
}
STREAMED = {
    "openai": [
        [
            '{"id":"c","choices":[{"index":0,"delta":{"content":"x","extra":@}}]}',
            '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        ],
        [
            '{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}',
            '{"choices":[],"usage":{"details":@}}',
        ],
    ],
    "anthropic": [
        [
            '{"type":"message_start","message":{"id":"m","usage":{},"extra":@}}',
            '{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","input":{"a":@}}}',
            '{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"details":@}}',
            '{"type":"message_stop"}',
        ],
    ],
}
ERRORS = ['{"error":{"message":"no","code":@}}', '{"detail":[{"loc":@,"msg":"no"}]}', '{"error":@}', "@"]


def deep(depth: int) -> list[str]:
    """Return JSON nested ``depth`` levels deep, by lists and by objects."""
    return ["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth]


def depth_in(text: str) -> int:
    """Return how deep ``text`` is nested, whose texts hold no brackets."""
    deepest = now = 0
    for character in text:
        now += (character in "[{") - (character in "]}")
        deepest = max(deepest, now)
    return deepest


async def ends(kind: str, content: str, *, status: int = 200, stream: bool = False) -> str:
    """Return the kind of an attempt's failure; ``""`` if it has a result, which can be read."""
    outcome = await outcome_of(kind, content.encode(), status=status, stream=stream)
    if outcome.failure is not None:
        return outcome.failure.kind
    assert decode_result(outcome.result).provider == "p"
    return ""


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("kind", "form"), [(kind, form) for kind, forms in WHOLE.items() for form in forms])
async def test_an_answer_is_read_up_to_a_depth_and_malformed_beyond_it(kind: str, form: str, depth: int) -> None:
    for inner in deep(depth):
        content = form.replace("@", inner)
        expected = "malformed_response" if depth_in(content) > MAX_DEPTH else ""
        assert await ends(kind, content) == expected, (content[:120], depth)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("kind", "forms"), [(kind, forms) for kind, all_ in STREAMED.items() for forms in all_])
async def test_a_streamed_event_is_read_up_to_a_depth_and_malformed_beyond_it(
    kind: str, forms: list[str], depth: int
) -> None:
    for inner in deep(depth):
        events = [form.replace("@", inner) for form in forms]
        expected = "malformed_response" if max(map(depth_in, events)) > MAX_DEPTH else ""
        content = as_stream(event.encode() for event in events).decode()
        assert await ends(kind, content, stream=True) == expected, (forms, depth)


@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_tools_streamed_input_is_read_up_to_a_depth_and_malformed_beyond_it(depth: int) -> None:
    for inner in deep(depth):
        text = f'{{"a":{inner}}}'
        events = [
            {"type": "message_start", "message": {"id": "m", "usage": {}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": text}},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ]
        content = as_stream(json.dumps(event).encode() for event in events).decode()
        expected = "malformed_response" if depth_in(text) > MAX_DEPTH else ""
        assert await ends("anthropic", content, stream=True) == expected, depth


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("form", ERRORS)
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_the_status_of_a_refusal_counts_however_deep_its_body_is(kind: str, form: str, depth: int) -> None:
    for inner in deep(depth):
        content = form.replace("@", inner)
        assert await ends(kind, content, status=400) == "invalid_request"
        assert await ends(kind, content, status=503) == "provider_server_error"
        streamed = as_stream([content.encode()]).decode()
        for said, stream in ((content, False), (streamed, True)):
            assert await ends(kind, said, stream=stream) in ("malformed_response", "provider_server_error")


@given(
    st.recursive(
        st.none() | st.integers() | st.text('[]{}\\"x\n\u2028', max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}\\"', max_size=3), inner, max_size=3),
        max_leaves=9,
    ),
    st.integers(MAX_DEPTH - 6, MAX_DEPTH + 2),
)
def test_only_brackets_outside_of_texts_count(value: object, around: int) -> None:
    for _ in range(around):
        value = [value]
    content = json.dumps(value).encode()
    if depth_of(value, 2 * MAX_DEPTH) <= MAX_DEPTH:
        assert read_json(content) == value
    else:
        with pytest.raises(TooDeep, match=f"nested more than {MAX_DEPTH} levels deep"):
            read_json(content)


def test_a_tools_input_with_half_a_surrogate_pair_is_kept() -> None:
    assembly = MessageAssembly()
    assembly.add({"type": "message_start", "message": {"id": "m"}})
    assembly.add({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}})
    delta = {"type": "input_json_delta", "partial_json": '{"a": "\\ud83d"}'}
    assembly.add({"type": "content_block_delta", "index": 0, "delta": delta})
    assert assembly.body()["content"] == [{"type": "tool_use", "input": {"a": "\ud83d"}}]
