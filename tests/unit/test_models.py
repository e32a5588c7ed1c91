"""The bodies of requests. What payloads and options refuse, `test_validation` shows."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiqueue import texts
from aiqueue.client.schedule_models import ScheduleBody
from aiqueue.errors import ValidationError
from aiqueue.models import (
    MAX_BATCH_JOBS,
    PAYLOAD,
    AIJobType,
    BatchBody,
    ChainBody,
    ChatPayload,
    CompletionPayload,
    EmbeddingPayload,
    FanInBody,
    GraphBody,
    JobOptions,
    SubmitBody,
)
from aiqueue.testing.jobs import chat, completion, embedding


@pytest.mark.parametrize(
    ("payload", "cls"), [(chat(), ChatPayload), (completion(), CompletionPayload), (embedding(), EmbeddingPayload)]
)
def test_the_type_chooses_the_model(payload: dict[str, Any], cls: type) -> None:
    model = PAYLOAD.validate_python(payload)
    assert type(model) is cls
    assert PAYLOAD.validate_json(model.model_dump_json(exclude_none=True)) == model
    assert model.type is AIJobType(payload["type"])


def test_a_message_may_have_parts_tools_and_no_text() -> None:
    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "42", "tool_call_id": "call_1"},
        {"role": "developer", "content": "Be brief", "name": "boss"},
    ]
    model = PAYLOAD.validate_python({**chat(), "messages": messages})
    assert isinstance(model, ChatPayload)
    assert model.messages[1].content is None


def test_models_can_not_be_changed_after_they_were_checked() -> None:
    model = PAYLOAD.validate_python(chat())
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        model.model = "other"
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        JobOptions().timeout = 5


def test_options_in_json_are_camel_case() -> None:
    body = '{"priority":"low","maxRetries":1,"timeout":5000,"tags":["t"],"metadata":{"a":null}}'
    options = JobOptions.model_validate_json(body)
    assert options.model_dump_json(by_alias=True, exclude_defaults=True) == body
    assert JobOptions(max_retries=0).max_retries == 0


def test_the_body_of_a_submit_is_the_specifications() -> None:
    body = SubmitBody.model_validate({"payload": chat(), "priority": "high", "options": {"maxRetries": 1}})
    assert (body.priority, body.options.max_retries) == ("high", 1)
    assert SubmitBody.model_validate({"payload": chat(), "priority": 15}).priority == 15
    assert SubmitBody.model_validate({"payload": chat()}).priority is None
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        SubmitBody.model_validate({"payload": chat(), "maxRetries": 1})


def test_the_body_of_a_batch_holds_one_job_at_least_and_has_a_limit() -> None:
    body = BatchBody.model_validate({"jobs": [chat()], "options": {"name": "nightly", "priority": 1}})
    assert (body.options.name, body.options.priority) == ("nightly", "low")
    with pytest.raises(pydantic.ValidationError, match="at least 1"):
        BatchBody.model_validate({"jobs": []})
    with pytest.raises(pydantic.ValidationError, match=f"at most {MAX_BATCH_JOBS}"):
        BatchBody.model_validate({"jobs": [chat()] * (MAX_BATCH_JOBS + 1)})


def test_a_batch_has_no_job_id() -> None:
    with pytest.raises(pydantic.ValidationError, match="jobId"):
        BatchBody.model_validate({"jobs": [chat()], "options": {"jobId": "0189f7e8-0000-7000-8000-000000000000"}})


def unbounded(schema: Any, path: str = "") -> list[str]:
    """Return where in a JSON schema a number may be as large as it likes."""
    found: list[str] = []
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and not {"maximum", "enum", "const"} & schema.keys():
            found.append(path)
        for name, part in schema.items():
            found += unbounded(part, path if name in ("properties", "$defs", "anyOf") else f"{path}.{name}")
    elif isinstance(schema, list):
        for part in schema:
            found += unbounded(part, path)
    return found


@pytest.mark.parametrize(
    "model", [SubmitBody, BatchBody, ChainBody, GraphBody, FanInBody, ScheduleBody], ids=lambda model: model.__name__
)
def test_every_number_has_a_bound_but_those_that_are_the_providers(model: type[pydantic.BaseModel]) -> None:
    assert set(unbounded(model.model_json_schema())) <= {".GenerationConfig.seed"}


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=66))
@example("\u00b2")
@example("\u0928\u092e\u0938\u094d\u0924\u0947")
@example("a\n")
def test_a_step_may_have_the_same_names_over_http_as_in_python(name: str) -> None:
    try:
        texts.check_step("steps.0.name", name)
    except ValidationError:
        is_good = False
    else:
        is_good = True
    for model, body in (
        (ChainBody, {"steps": [{"name": name, "payload": chat()}]}),
        (GraphBody, {"nodes": {name: {"payload": chat()}}}),
    ):
        try:
            model.model_validate(body)
        except pydantic.ValidationError:
            assert not is_good, name
        else:
            assert is_good, name
