"""What is refused, and how it is said."""

from __future__ import annotations

from typing import Any

import msgspec
import pydantic
import pytest

from aiqueue.errors import FieldError, PayloadTooLarge, ValidationError
from aiqueue.levels import AIJobPriority
from aiqueue.models import ChainBody, ChatPayload, CompletionPayload, JobOptions
from aiqueue.protocol import ProviderEntry, Welcome
from aiqueue.testing.jobs import chat, completion, embedding
from aiqueue.validation import PayloadChecker, field_errors, validate_job_payload, validate_options

NAN = float("nan")


def checker(*, max_payload_bytes: int = 1_000) -> PayloadChecker:
    entries = [
        ProviderEntry("sim", "simulated", ("chat_completion", "text_completion"), ("model-a", "model-b")),
        ProviderEntry("any", "openai", ("chat_completion", "embedding")),
        ProviderEntry("local", "llama_cpp", ("chat_completion", "text_completion", "embedding")),
    ]
    return PayloadChecker(Welcome(0, entries, max_payload_bytes, (3_000, 10_000, 30_000, 60_000)))


def fields_of(payload: Any) -> set[str]:
    """Return the fields that are refused."""
    with pytest.raises(ValidationError) as caught:
        checker().check(payload)
    return {error.field for error in caught.value.errors}


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        ({}, {"type"}),
        (None, {"payload"}),
        ("text", {"payload"}),
        ([chat()], {"payload"}),
        ({**chat(), "type": "song"}, {"type"}),
        ({**chat(), "type": 7}, {"type"}),
        ({**chat(), "messages": []}, {"messages"}),
        ({**chat(), "messages": "Hi"}, {"messages"}),
        ({**chat(), "messages": [{"role": "poet", "content": "x"}]}, {"messages.0.role"}),
        ({**chat(), "messages": [{"role": "user", "content": 5}]}, {"messages.0.content"}),
        ({**chat(), "messages": [{"role": "user", "content": ["x"]}]}, {"messages.0.content", "messages.0.content.0"}),
        ({**chat(), "messages": [{"role": "user", "contents": "x"}]}, {"messages.0.contents"}),
        ({**chat(), "model": ""}, {"model"}),
        ({**chat(), "model": "m" * 257}, {"model"}),
        ({**chat(), "provider": 5}, {"provider"}),
        ({**chat(), "prompt": "x"}, {"prompt"}),
        ({**completion(), "prompt": ""}, {"prompt"}),
        ({**completion(), "config": {"temperature": "0.7"}}, {"config.temperature"}),
        ({**completion(), "config": {"temperature": 2.1, "top_p": 0}}, {"config.temperature", "config.top_p"}),
        ({**completion(), "config": {"max_tokens": True}}, {"config.max_tokens"}),
        ({**completion(), "config": {"maxTokens": 5}}, {"config.maxTokens"}),
        ({**completion(), "config": {"stop": 5}}, {"config.stop"}),
        ({**embedding(), "input": []}, {"input"}),
        ({**embedding(), "input": ["x", 5]}, {"input", "input.1"}),
    ],
)
def test_bad_input_is_refused_by_the_name_of_its_field(payload: Any, fields: set[str]) -> None:
    assert fields_of(payload) == fields


@pytest.mark.parametrize(
    "payload",
    [
        {**completion(), "prompt": b"Hi"},
        {**completion(), "model": b"model-a"},
        {**chat(), "messages": [{"role": "user", "content": b"Hi"}]},
        {**chat(), "messages": [{"role": "user", "content": [{b"type": "text"}]}]},
        {**embedding(), "input": [b"Hi"]},
        {**completion(), "prompt": "broken \ud800"},
        {**completion(), "config": {"extra_body": {"x": "\ud800"}}},
        {**completion(), "config": {"extra_body": {"x": NAN}}},
        {**completion(), "config": {"extra_body": {"x": float("inf")}}},
        {**completion(), "config": {"temperature": NAN}},
        {**completion(), "config": {"extra_body": {"x": {1, 2}}}},
        {**completion(), "config": {"extra_body": {"x": object()}}},
    ],
)
def test_what_json_can_not_hold_is_refused_and_not_changed_in_silence(payload: Any) -> None:
    with pytest.raises(ValidationError):
        checker().check(payload)


def test_deep_and_endless_input_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"a": deep}
    endless: dict[str, Any] = {}
    endless["a"] = endless
    for body in (deep, endless):
        with pytest.raises(ValidationError):
            validate_job_payload({**completion(), "config": {"extra_body": body}})


@pytest.mark.parametrize(
    ("payload", "field", "message"),
    [
        (chat(provider="nobody"), "provider", "unknown provider 'nobody'; configured: any, local, sim"),
        (chat(model="model-x"), "model", "provider 'sim' has no model 'model-x'; it has: model-a, model-b"),
        (
            embedding(provider="sim"),
            "type",
            "provider 'sim' has no embedding; it has: chat_completion, text_completion",
        ),
    ],
)
def test_what_a_running_system_does_not_have_is_refused_with_what_it_has(
    payload: Any, field: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        checker().check(payload)
    assert caught.value.errors == (FieldError(field, message),)


def test_a_provider_without_a_list_of_models_takes_any() -> None:
    assert checker().check(chat(provider="any", model="whatever")).model == "whatever"


def test_a_checked_payload_says_what_the_queue_must_know_and_holds_the_rest_as_it_was() -> None:
    payload = {**chat(), "config": {"seed": 2**70, "extra_body": {"x": [None, 1.5, "ü\u0000"]}}}
    checked = checker().check(payload)
    assert (checked.type, checked.provider, checked.model) == ("chat_completion", "sim", "model-a")
    assert msgspec.json.decode(checked.body) == payload


def test_a_model_is_stored_without_what_it_does_not_say() -> None:
    model = CompletionPayload.model_validate({**completion("x"), "config": {"extra_body": {"a": None}, "seed": 1}})
    stored = msgspec.json.decode(checker().check(model).body)
    assert stored == {**completion("x"), "config": {"extra_body": {"a": None}, "seed": 1}}


def test_the_limit_counts_bytes_and_not_characters() -> None:
    fits = chat("")
    room = 1_000 - len(checker().check(fits).body)
    assert len(checker().check(chat("x" * room)).body) == 1_000
    with pytest.raises(PayloadTooLarge, match="has 1001 bytes, over the limit of 1000"):
        checker().check(chat("x" * (room - 1) + "ü"))


@pytest.mark.parametrize("value", [5, None, True, b"sim", [], {}, "", "x" * 1_000, "a\nb"], ids=repr)
@pytest.mark.parametrize("field", ["type", "provider", "model"])
def test_a_model_that_was_copied_with_an_odd_target_is_refused_by_name(field: str, value: object) -> None:
    odd = ChatPayload.model_validate(chat()).model_copy(update={field: value})
    assert fields_of(odd) == {field}
    with pytest.raises(ValidationError) as caught:
        checker().check_all([chat(), odd])
    assert [(error.field, error.index) for error in caught.value.errors] == [(field, 1)]


def test_a_model_that_was_made_without_a_check_is_refused_by_name() -> None:
    assert fields_of(ChatPayload.model_construct(provider="sim")) == {"type"}
    assert fields_of(ChatPayload.model_construct(type="chat_completion", model="model-a")) == {"provider"}
    made: Any = ChatPayload.model_construct(type="chat_completion", provider="sim", model="model-a", messages=[])
    assert checker().check(made).type == "chat_completion"


GOOD, NO_MESSAGES = chat(), {**chat(), "messages": []}


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        ({"nane": "x", "payload": GOOD}, ["steps.0.nane"]),
        ({"name": "a b", "payload": GOOD}, ["steps.0.name"]),
        ({"name": "x", "payload": NO_MESSAGES}, ["steps.0.payload.messages"]),
        ({"payload": {**GOOD, "type": "song"}}, ["steps.0.payload.type"]),
        ({"payload": GOOD, "type": "chat_completion"}, ["steps.0.type"]),
        (NO_MESSAGES, ["steps.0.messages"]),
        ({**GOOD, "type": "song"}, ["steps.0.type"]),
        ({**GOOD, "name": "x"}, ["steps.0.name"]),
        ({}, ["steps.0.payload"]),
        (5, ["steps.0"]),
    ],
)
def test_a_wrong_step_has_the_errors_of_the_form_that_was_meant(step: object, fields: list[str]) -> None:
    for check in (ChainBody.model_validate, lambda body: ChainBody.model_validate_json(msgspec.json.encode(body))):
        with pytest.raises(pydantic.ValidationError) as caught:
            check({"steps": [step]})
        assert [error.field for error in field_errors(caught.value)] == fields


# --- lists -----------------------------------------------------------------------------------------------------------


def test_every_bad_job_of_a_list_is_named_by_its_index() -> None:
    payloads = [chat(), {**chat(), "messages": [], "extra": 1}, chat(), chat(model="x")]
    with pytest.raises(ValidationError) as caught:
        checker().check_all(payloads)
    assert [(error.index, error.field) for error in caught.value.errors] == [
        (1, "messages"),
        (1, "extra"),
        (3, "model"),
    ]
    assert "job 3: model" in str(caught.value)


def test_of_many_bad_jobs_the_first_hundred_are_named() -> None:
    with pytest.raises(ValidationError) as caught:
        checker().check_all([chat(model="x"), chat()] * 500)
    assert [error.index for error in caught.value.errors] == list(range(0, 200, 2))
    assert str(caught.value).endswith("; and at least 95 more")


def test_a_list_is_too_large_only_if_that_is_all_that_is_wrong() -> None:
    large, wrong = chat("x" * 2_000), chat(model="x")
    with pytest.raises(PayloadTooLarge):
        checker().check_all([chat(), large, large])
    with pytest.raises(ValidationError) as caught:
        checker().check_all([large, wrong])
    assert type(caught.value) is ValidationError


def test_a_good_list_is_given_back_in_order() -> None:
    assert [b"%d" % n in checked.body for n, checked in enumerate(checker().check_all([chat("0"), chat("1")]))] == [
        True,
        True,
    ]
    assert checker().check_all([]) == []


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"retries": 3}, "options.retries"),
        ({"max_retries": 11}, "options.max_retries"),
        ({"maxRetries": -1}, "options.maxRetries"),
        ({"timeout": 0}, "options.timeout"),
        ({"timeout": 86_400_001}, "options.timeout"),
        ({"timeout": NAN}, "options.timeout"),
        ({"priority": "asap"}, "options.priority"),
        ({"priority": 7}, "options.priority"),
        ({"priority": True}, "options.priority"),
        ({"tags": "abc"}, "options.tags"),
        ({"tags": [""]}, "options.tags.0"),
        ({"tags": ["t"] * 33}, "options.tags"),
        ({"jobId": "no uuid"}, "options.jobId"),
        ({"metadata": {"x": "\ud800"}}, "options.metadata"),
        ([], "options"),
        (5, "options"),
    ],
)
def test_bad_options_are_refused_by_name(options: Any, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_options(options)
    assert [error.field for error in caught.value.errors] == [field]


@pytest.mark.parametrize("metadata", [{"x": NAN}, {"x": b"bytes"}, {b"x": 1}, {"x": object()}])
def test_metadata_that_json_can_not_hold_is_refused(metadata: Any) -> None:
    with pytest.raises(ValidationError):
        validate_options({"metadata": metadata})


@pytest.mark.parametrize(("given", "advice"), [(30, "30000"), (99, "99000"), (1.5, "1500"), (0.5, "500")])
def test_a_timeout_in_seconds_is_refused_with_what_to_write(given: float, advice: str) -> None:
    with pytest.raises(ValidationError, match=f"in milliseconds: {given} would end every attempt; .* write {advice}$"):
        validate_options({"timeout": given})


@pytest.mark.parametrize("options", [{"maxRetries": 1, "jobId": None}, {"max_retries": 1, "job_id": None}])
def test_both_spellings_are_understood(options: Any) -> None:
    assert validate_options(options) == JobOptions(max_retries=1)


@pytest.mark.parametrize("priority", ["urgent", 15, AIJobPriority.URGENT])
def test_a_level_is_understood_by_name_and_by_number(priority: Any) -> None:
    assert validate_options({"priority": priority}).priority is AIJobPriority.URGENT


def test_no_options_are_the_defaults() -> None:
    assert validate_options(None) == validate_options({}) == JobOptions()
    assert validate_options(given := JobOptions(max_retries=1)) is given
    assert (JobOptions().max_retries, JobOptions().timeout, JobOptions().priority) == (None, 30_000, "medium")


def with_schema(provider: str, **schema: object) -> dict[str, Any]:
    """Return a chat that asks for an answer by a schema."""
    return {**chat(provider=provider), "config": {"response_format": {"type": "json_object", "schema": schema}}}


def test_a_schema_that_would_end_llama_cpps_process_is_refused_when_it_is_submitted() -> None:
    payload = with_schema("local", type="string", maxLength=20_000)
    for given in (payload, validate_job_payload(payload)):
        with pytest.raises(ValidationError, match=r"schema\.maxLength: is 20000, over the limit of 1000"):
            checker().check(given)
    assert fields_of(payload) == {"config.response_format.schema.maxLength"}
    assert checker().check(with_schema("local", type="string", maxLength=1_000)).provider == "local"
    assert checker().check(with_schema("any", type="string", maxLength=20_000)).provider == "any"
