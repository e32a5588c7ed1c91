"""Whatever is submitted: a model or a ValidationError, and what is stored is what was validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from aiqueue import texts
from aiqueue.errors import FieldError, ValidationError
from aiqueue.models import PAYLOAD, ChatPayload, CompletionPayload, EmbeddingPayload, JobOptions
from aiqueue.protocol import ProviderEntry, Welcome
from aiqueue.shape import shape_of
from aiqueue.testing.jobs import chat, completion, embedding
from aiqueue.validation import PayloadChecker, validate_job_payload, validate_options

_T = TypeVar("_T")

MODELS = (ChatPayload, CompletionPayload, EmbeddingPayload)
TYPES = ("chat_completion", "text_completion", "embedding")
SHAPE = shape_of(PAYLOAD)
CHECKER = PayloadChecker(Welcome(0, [ProviderEntry("sim", "simulated", TYPES)], 100_000, (1, 2, 3, 4)))

odd_text = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates too
names = st.sampled_from(
    ["type", "provider", "model", "messages", "role", "content", "config", "prompt", "input", "stop", "extra_body"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | odd_text
    | st.binary(max_size=4)
    | st.sampled_from([*TYPES, "sim", "user", "assistant"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | odd_text, inner, max_size=5),
    max_leaves=12,
)


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[Any, Any]:
    """Return a good payload of which something was replaced, at any depth."""
    payload: Any = draw(st.sampled_from([chat, completion, embedding]))()
    payload["config"] = {"temperature": 0.5, "stop": ["x"], "extra_body": {"a": [1]}}
    at = payload
    while True:
        keys = list(range(len(at))) if isinstance(at, list) else list(at)
        key = draw(st.sampled_from(keys))
        if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        at[key] = draw(anything)
        if isinstance(at, dict) and draw(st.booleans()):
            at[draw(names | odd_text)] = draw(anything)
        return payload  # type: ignore[no-any-return]


@settings(max_examples=400)
@given(anything)
def test_anything_at_all_is_a_model_or_a_validation_error(payload: Any) -> None:
    _validates_or_says_why(payload)


@settings(max_examples=600)
@given(nearly_right())
def test_a_payload_that_is_nearly_right_is_a_model_or_a_validation_error(payload: Any) -> None:
    _validates_or_says_why(payload)


@settings(max_examples=600)
@given(nearly_right() | anything)
def test_the_shape_accepts_what_the_models_accept_and_nothing_else(payload: Any) -> None:
    accepted, _ = _tried(validate_job_payload, payload)
    assert (SHAPE.isinstance_python(payload) and _names_are_clean(payload)) == (accepted is not None)


def _names_are_clean(payload: dict[str, Any]) -> bool:
    """Tell what the shape leaves to its users, who look at each name once."""
    return not any(map(texts._find_refused, (payload["provider"], payload["model"])))


@settings(max_examples=600)
@given(nearly_right())
def test_what_is_stored_is_what_was_validated(payload: Any) -> None:
    checked, errors = _tried(CHECKER.check, payload)
    if checked is None:
        assert errors
    else:
        assert validate_job_payload(msgspec.json.decode(checked.body)) == validate_job_payload(payload)


@settings(max_examples=300)
@given(anything | st.dictionaries(st.sampled_from(list(JobOptions.model_fields)), anything, max_size=3))
def test_options_are_a_model_that_can_be_sent_or_a_validation_error(options: Any) -> None:
    checked, errors = _tried(validate_options, options)
    if checked is None:
        assert all(item.field.startswith("options") for item in errors)
    else:
        assert msgspec.json.decode(msgspec.json.encode(checked.metadata)) == checked.metadata
        msgspec.msgpack.encode(checked.tags)


def _validates_or_says_why(payload: Any) -> None:
    model, errors = _tried(validate_job_payload, payload)
    assert isinstance(model, MODELS) or errors
    assert all(item.field and item.message for item in errors)


def _tried(check: Callable[[Any], _T], given_: Any) -> tuple[_T | None, tuple[FieldError, ...]]:
    """Return the answer or what was wrong; any other error fails the test."""
    try:
        return check(given_), ()
    except ValidationError as error:
        assert str(error)  # noqa: PT017
        return None, error.errors
