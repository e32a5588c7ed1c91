"""One shape whatever the provider."""

from __future__ import annotations

import msgspec

from aiqueue.results import Choice, Embedding, JobResult, Message, Response, Usage, decode_result, encode_result
from aiqueue.testing.jobs import result


def test_a_result_survives_the_journal_with_the_providers_own_answer() -> None:
    made = result()
    made.raw = {"id": "x", "odd": [1, None, {"deep": "ü"}]}
    assert decode_result(encode_result(made)) == made


def test_json_is_camel_case_outside_and_the_chat_formats_own_inside() -> None:
    shown = msgspec.json.decode(encode_result(result()))
    assert {"response", "tokens", "latency", "usage", "finishReason", "requestId", "raw"} <= set(shown)
    assert (
        shown["response"]["choices"][0]
        == {
            "index": 0,
            "message": {"content": "Hi there"},
            "finish_reason": "stop",
        }
        or shown["response"]["choices"][0]["message"]["content"] == "Hi there"
    )
    assert shown["usage"] == {"promptTokens": 3, "completionTokens": 2, "totalTokens": 5}


def test_the_text_is_the_first_choices_or_empty() -> None:
    assert result("Hi").text == "Hi"
    silent = result()
    silent.response.choices = [Choice(index=0, message=Message(content=None, tool_calls=[{"id": "1"}]))]
    assert silent.text == ""
    vector = JobResult(
        response=Response(model="m", data=[Embedding(index=0, embedding=[0.5, 1.0])]),
        tokens=1,
        latency=1.0,
        provider="p",
        model="m",
        usage=Usage(),
    )
    assert vector.text == ""
    assert decode_result(encode_result(vector)).response.data[0].embedding == [0.5, 1.0]
