"""Answers that are odd beside their text, as in counts, or behind a byte order mark: each is paid for, and kept."""

from __future__ import annotations

import codecs
import json

import pytest

from aiqueue.encodable import MAX_COUNT
from aiqueue.providers.openai_format import answer_of
from aiqueue.providers.remote import Reply
from aiqueue.results import JobResult, decode_result
from tests.tools.said_answers import as_stream, outcome_of
from tests.unit.providers.conftest import request

#: By the form of an answer, its events where it streams: ``@`` stands for what was used, and it says "Hi".
ANSWERS: dict[str, list[str]] = {
    "openai": ['{"id":"c","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":@}'],
    "anthropic": ['{"id":"c","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":@}'],
    "openai stream": [
        '{"choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":@}',
        '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        '{"choices":[],"usage":@}',
    ],
    "anthropic stream": [
        '{"type":"message_start","message":{"id":"m","usage":@}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"Hi"}}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":@}',
        '{"type":"message_stop"}',
    ],
}
#: JSON in place of a count, and what it counts.
COUNTS = {
    "7": 7,
    "12.0": 12,
    "12.9": 12,
    "null": 0,
    "-3": 0,
    "true": 0,
    '"12"': 0,
    "[]": 0,
    '{"of":3}': 0,
    "NaN": 0,
    "1e999": 0,
    "1e300": MAX_COUNT,
    "1" + "0" * 30: MAX_COUNT,
    "1" * 5_000: 0,
}
NAMES = {
    "openai": ("prompt_tokens", "completion_tokens", "total_tokens"),
    "anthropic": ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
}


async def read(form: str, used: str) -> JobResult:
    """Return the result of a job whose answer in ``form`` says that it used ``used``."""
    kind, _, stream = form.partition(" ")
    events = [event.replace("@", used).encode() for event in ANSWERS[form]]
    outcome = await outcome_of(kind, as_stream(events) if stream else events[0], stream=bool(stream))
    assert outcome.failure is None, outcome.failure
    result = decode_result(outcome.result)
    assert (result.text, result.finish_reason) == ("Hi", "stop")
    return result


@pytest.mark.parametrize("form", ANSWERS)
@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count[:9])
async def test_an_answer_is_kept_whatever_stands_for_one_of_its_counts(form: str, count: str) -> None:
    for name in NAMES[form.split()[0]]:
        assert (await read(form, f'{{"{name}":{count}}}')).tokens == COUNTS[count], name


@pytest.mark.parametrize("form", ANSWERS)
@pytest.mark.parametrize("used", ["null", "[]", "[1]", '"x"', "7", "0.5", "true", "NaN", "{}"])
async def test_an_answer_is_kept_whatever_stands_for_all_of_its_counts(form: str, used: str) -> None:
    assert (await read(form, used)).tokens == 0


async def test_a_total_that_is_none_is_that_of_the_parts() -> None:
    for total in ("null", "0", "-1", '"x"'):
        used = f'{{"prompt_tokens":3,"completion_tokens":5.0,"total_tokens":{total}}}'
        assert (await read("openai", used)).tokens == 8


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_byte_order_mark_changes_neither_an_answer_nor_an_error(kind: str) -> None:
    content = ANSWERS[kind][0].replace("@", "{}").encode()
    outcome = await outcome_of(kind, codecs.BOM_UTF8 + content)
    assert outcome.failure is None, outcome.failure
    assert decode_result(outcome.result).text == "Hi"
    error = json.dumps({"error": {"message": "maximum context length is 10", "type": "invalid_request_error"}}).encode()
    failure = (await outcome_of(kind, codecs.BOM_UTF8 + error, status=400)).failure
    assert failure == (await outcome_of(kind, error, status=400)).failure
    assert failure is not None
    assert failure.kind == "context_length_exceeded"


@pytest.mark.parametrize("form", ANSWERS)
@pytest.mark.parametrize("value", ["null", "7", "[]", '{"a":1}', "true"])
async def test_an_answer_is_kept_whatever_stands_for_its_id_and_model(form: str, value: str) -> None:
    kind, _, stream = form.partition(" ")
    first, *rest = ANSWERS[form]
    for name in ("id", "model"):
        begin = '"message":{"id":"m",' if form == "anthropic stream" else "{"
        events = [first.replace(begin, f'{begin}"{name}":{value},').replace('"id":"m",', ""), *rest]
        said = [event.replace('"id":"c",', "").replace("@", "{}").encode() for event in events]
        outcome = await outcome_of(kind, as_stream(said) if stream else said[0], stream=bool(stream))
        assert outcome.failure is None, outcome.failure
        result = decode_result(outcome.result)
        assert (result.text, result.response.id, result.response.model) == ("Hi", None, "m")
        assert isinstance(result.raw, dict)
        assert result.raw.get(name) == json.loads(value)


@pytest.mark.parametrize("index", ["", '"index":null,'])
async def test_choices_that_are_not_numbered_are_in_their_order(index: str) -> None:
    choices = ",".join(f'{{{index}"message":{{"role":null,"content":"{text}"}}}}' for text in ("Hi", "Ho"))
    outcome = await outcome_of("openai", f'{{"choices":[{choices}]}}'.encode())
    found = decode_result(outcome.result).response.choices
    assert [(choice.index, choice.message.role, choice.message.content) for choice in found] == [
        (0, "assistant", "Hi"),
        (1, "assistant", "Ho"),
    ]


@pytest.mark.parametrize("index", [{}, {"index": None}])
def test_vectors_that_are_not_numbered_are_in_their_order(index: dict[str, None]) -> None:
    body = {"data": [{"embedding": [0.5], **index}, {"embedding": [1.5], **index}]}
    answer = answer_of(Reply(body, None), request("embedding", input=["a", "b"]), provider="p")
    assert [(vector.index, vector.embedding) for vector in answer.response.data] == [(0, [0.5]), (1, [1.5])]
