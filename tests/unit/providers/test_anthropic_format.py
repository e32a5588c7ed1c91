"""Between our payload and Anthropic's Messages format."""

from __future__ import annotations

from typing import Any

import pytest

from aiqueue.errors import InvalidRequest, MalformedResponse
from aiqueue.providers.anthropic_format import answer_of, arguments_of
from aiqueue.providers.base import ProviderAnswer
from aiqueue.providers.remote import Reply
from tests.unit.providers.conftest import chat

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}}


def arguments(messages: list[Any], **options: Any) -> dict[str, Any]:
    return arguments_of(chat(messages=messages), options, provider="an")


def answered(**body: Any) -> ProviderAnswer:
    return answer_of(Reply(body, None), chat(), provider="an")


def test_system_turns_are_lifted_out_of_the_conversation() -> None:
    system = {"role": "system", "content": "Be brief."}
    developer = {"role": "developer", "content": "Be kind."}
    user = {"role": "user", "content": "hi"}
    found = arguments([system, user, developer])
    assert found["system"] == "Be brief.\n\nBe kind."
    assert found["messages"] == [user]


def test_system_turns_in_parts_stay_parts() -> None:
    part = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "system", "content": [part]},
        {"role": "system", "content": "x"},
        {"role": "user", "content": "y"},
    ]
    assert arguments(messages)["system"] == [part, {"type": "text", "text": "x"}]


def test_only_system_turns_are_no_conversation() -> None:
    with pytest.raises(InvalidRequest, match="messages: needs a turn of the user"):
        arguments([{"role": "system", "content": "Be brief."}])


def test_calls_and_results_become_blocks() -> None:
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Looking.", "tool_calls": [CALL, CALL | {"id": "c2"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": None},
        {"role": "user", "content": "Thanks"},
    ]
    assert arguments(messages)["messages"][1:] == [
        {"role": "assistant", "content": [{"type": "text", "text": "Looking."}, USE, USE | {"id": "c2"}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "c2", "content": ""},
            ],
        },
        {"role": "user", "content": "Thanks"},
    ]


def test_a_result_at_the_end_is_a_turn() -> None:
    messages = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]
    assert [turn["role"] for turn in arguments(messages)["messages"]] == ["assistant", "user"]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        ({"url": "https://x/y.png"}, {"type": "url", "url": "https://x/y.png"}),
        ({"url": "data:image/png;base64,AAAA"}, {"type": "base64", "media_type": "image/png", "data": "AAAA"}),
    ],
)
def test_an_image_becomes_a_block(image: dict[str, str], source: dict[str, str]) -> None:
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": image}]
    found = arguments([{"role": "user", "content": parts}])["messages"][0]["content"]
    assert found == [parts[0], {"type": "image", "source": source}]


@pytest.mark.parametrize(
    ("choice", "translated"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
        ({"type": "any"}, {"type": "any"}),
    ],
)
def test_a_tool_choice_is_translated(choice: Any, translated: dict[str, str]) -> None:
    assert arguments([{"role": "user", "content": "x"}], tool_choice=choice)["tool_choice"] == translated


def test_a_tool_of_anthropics_own_passes_unchanged() -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    assert arguments([{"role": "user", "content": "x"}], tools=[tool])["tools"] == [tool]


@pytest.mark.parametrize(
    ("message", "options", "field"),
    [
        ({"role": "user", "content": "x", "name": "Ann"}, {}, "messages.0.name"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, {}, "messages.0.tool_calls.0"),
        (
            {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "w", "arguments": "{"}}]},
            {},
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "w", "arguments": '{"a":' * 100_000}}]},
            {},
            "messages.0.tool_calls.0.function.arguments",
        ),
        ({"role": "user", "content": "x"}, {"tool_choice": "maybe"}, "config.tool_choice"),
    ],
)
def test_what_the_format_can_not_say_is_refused_by_name(
    message: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^Provider an: {field}: "):
        arguments([message], **options)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", None),
        (None, None),
    ],
)
def test_a_stop_reason_has_its_common_name(reason: str | None, finish: str | None) -> None:
    assert answered(content=[], stop_reason=reason).finish_reason == finish


def test_text_is_joined_and_thought_is_left_to_raw() -> None:
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}, USE]
    answer = answered(content=blocks)
    message = answer.response.choices[0].message
    assert message.content == "ab"
    assert message.tool_calls == [CALL | {"function": {"name": "weather", "arguments": '{"city":"Paris"}'}}]
    assert answer.raw == {"content": blocks}


def test_cached_tokens_count_as_prompt() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 10, "cache_read_input_tokens": None}
    found = answered(content=[], usage=usage).usage
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (11, 2, 13)


def test_an_answer_without_content_is_malformed() -> None:
    with pytest.raises(MalformedResponse, match="`content`"):
        answered(id="msg_1")
