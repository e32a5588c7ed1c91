"""Every text of our own that a client sends is refused, by its field's name, or kept and shown as it was sent."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aiqueue import texts
from aiqueue.client.schedule_models import ScheduleBody
from aiqueue.models import BatchBody, ChainBody, GraphBody, SubmitBody
from aiqueue.testing.jobs import chat
from aiqueue.testing.jobs import settings as of
from tests.http.rig import Rig

HARMFUL = ["\n", "\r", "\t", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\u2066", "\u200f", "\ud83d"]
TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(st.sampled_from("ab-_ é👍" + "".join(HARMFUL)), max_size=6),
    st.text(st.characters(max_codepoint=0x9F), min_size=1, max_size=70),
    st.integers(60, 300).map(lambda length: "x" * length),
)


class Field(NamedTuple):
    """How a text is sent in a field of our own, and where it comes back."""

    path: str
    body: Callable[[str], dict[str, Any]]
    most: int
    shown: Callable[[dict[str, Any]], object] | None  #: in what ``follow`` answers; None: it is not shown
    follow: Callable[[dict[str, Any]], str] = lambda accepted: f"/ai/jobs/{accepted['jobId']}"


def job(**options: Any) -> dict[str, Any]:
    return {"payload": chat(), "options": options}


def schedule(**fields: Any) -> dict[str, Any]:
    return {"payload": chat(), "name": "nightly", "cronExpression": "@daily"} | fields


def of_batch(accepted: dict[str, Any]) -> str:
    return f"/ai/batches/{accepted['batchId']}"


def of_schedule(accepted: dict[str, Any]) -> str:
    return f"/ai/schedules/{accepted['scheduleId']}"


FIELDS = {
    "options.tags.0": Field("/ai/jobs", lambda text: job(tags=[text]), texts.TAG.most, lambda found: found["tags"][0]),
    "payload.model": Field(
        "/ai/jobs", lambda text: {"payload": chat(model=text)}, texts.MODEL.most, lambda found: found["model"]
    ),
    "payload.provider": Field("/ai/jobs", lambda text: {"payload": chat(provider=text)}, 0, None),
    "payload.type": Field("/ai/jobs", lambda text: {"payload": chat(type=text)}, 0, None),
    "priority": Field("/ai/jobs", lambda text: {**job(), "priority": text}, 0, None),
    "options.onGate": Field("/ai/jobs", lambda text: job(onGate=text), 0, None),
    "options.jobId": Field("/ai/jobs", lambda text: job(jobId=text), 0, None),
    "options.idempotencyKey": Field(
        "/ai/jobs", lambda text: job(idempotencyKey=text), texts.IDEMPOTENCY_KEY.most, None
    ),
    "options.name": Field(
        "/ai/jobs/batch",
        lambda text: {"jobs": [chat()], "options": {"name": text}},
        texts.NAME.most,
        lambda found: found["name"],
        of_batch,
    ),
    "name": Field(
        "/ai/schedules", lambda text: schedule(name=text), texts.NAME.most, lambda found: found["name"], of_schedule
    ),
    "timezone": Field("/ai/schedules", lambda text: schedule(timezone=text), 0, None),
    "cronExpression": Field("/ai/schedules", lambda text: schedule(cronExpression=text), 0, None),
    "steps.0": Field("/ai/chains", lambda text: {"steps": [{"name": text, "payload": chat()}]}, 64, None),
    "nodes": Field("/ai/graphs", lambda text: {"nodes": {text: {"payload": chat()}}}, 64, None),
}
TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the direction of text
KNOWN = {"payload.type": {"chat_completion"}, "priority": {"urgent", "high", "medium", "low"}}


def is_clean(text: str) -> bool:
    categories = {unicodedata.category(each) for each in text}
    return not categories & {"Cc", "Cs", "Zl", "Zp"} and not set(text) & TURNS


@pytest.fixture(scope="module")
def served() -> Iterator[Callable[..., httpx.Response]]:
    """Return a function that asks one system, without a worker, over HTTP."""
    with asyncio.Runner() as runner:
        rig: Any = runner.run(_made())

        def ask(method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"content-type": "application/json"} | headers
            return runner.run(rig.http.request(method, path, content=raw, headers=sent))

        yield ask
        runner.run(rig.stack.aclose())


async def _made() -> Rig:
    stack = AsyncExitStack()
    rig: Any = await stack.enter_async_context(Rig(of(retry_s=0.0)))
    await stack.enter_async_context(rig.serving())
    rig.stack = stack
    return rig


@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
@example(text="a\nb")
@example(text="\x1b[2J")
@example(text="a\u202eb")
@example(text="\ud83d")
@example(text="x" * 300)
@example(text="größe 7 👍")
def test_a_text_is_refused_by_its_fields_name_or_kept_as_it_was_sent(
    served: Callable[..., httpx.Response], name: str, text: str
) -> None:
    field = FIELDS[name]
    response = served("POST", field.path, field.body(text))
    if response.status_code in (409, 422):  # taken by an earlier text that is the same
        return
    if response.status_code >= 300:
        assert response.status_code == 400, response.text
        named = [item["field"] for item in response.json()["errors"]]
        assert any(each.startswith((name, "body")) for each in named), named
        assert len(response.content) < 10_000
        assert (
            not text
            or name not in ("options.tags.0", "options.name", "name")
            or not (is_clean(text) and len(text) <= field.most)
            or (name == "name" and ("/" in text or not text.strip(".")))  # no address would lead to it
        ), f"{text!r} was refused: {named}"
        return
    assert 1 <= len(text) <= field.most or text in KNOWN.get(name, ())
    assert is_clean(text)
    if field.shown is not None:
        found = served("GET", field.follow(response.json()))
        assert field.shown(found.json()) == text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.text(max_size=300).map(str.encode) | st.binary(max_size=10))
@example(sent=b"a\x1bb")
@example(sent=b"x" * 256)
@example(sent="naïve".encode())
@example(sent="naïve".encode("latin-1"))
def test_a_key_in_a_header_is_refused_or_known_again(served: Callable[..., httpx.Response], sent: bytes) -> None:
    headers: Any = {"idempotency-key": sent}
    response = served("POST", "/ai/jobs", {"payload": chat()}, **headers)
    key = sent.decode(errors="replace")
    is_utf_8 = key.encode() == sent
    if not (is_utf_8 and 1 <= len(key) <= texts.IDEMPOTENCY_KEY.most and is_clean(key)):
        assert response.status_code == 400
        assert [item["field"] for item in response.json()["errors"]] == ["Idempotency-Key"]
    else:
        assert response.status_code == 202
        again = served("POST", "/ai/jobs", job(idempotencyKey=key))
        assert again.json() == response.json()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), JSON, max_size=4))
def test_metadata_is_kept_as_it_was_sent(served: Callable[..., httpx.Response], metadata: dict[str, Any]) -> None:
    accepted = served("POST", "/ai/jobs", job(metadata=metadata))
    assert accepted.status_code == 202
    assert served("GET", f"/ai/jobs/{accepted.json()['jobId']}").json().get("metadata", {}) == metadata


@pytest.mark.parametrize("path", ["/ai/jobs", "/ai/jobs/batch", "/ai/chains", "/ai/graphs", "/ai/schedules"])
def test_metadata_beyond_its_limit_is_refused_wherever_it_is_sent(
    served: Callable[..., httpx.Response], path: str
) -> None:
    work = {
        "/ai/jobs": {"payload": chat()},
        "/ai/jobs/batch": {"jobs": [chat()]},
        "/ai/chains": {"steps": [chat()]},
        "/ai/graphs": {"nodes": {"a": {"payload": chat()}}},
        "/ai/schedules": schedule(name="heavy"),
    }[path]
    response = served("POST", path, work | {"options": {"metadata": {"note": "x" * 16_384}}})
    assert response.status_code == 413
    assert response.json()["errors"][0]["field"] == "options.metadata"
    assert served("POST", path, work | {"options": {"metadata": {"note": "x" * 16_000}}}).status_code in (201, 202)


def nested(depth: int) -> Any:
    return [] if depth == 1 else [nested(depth - 1)]


def test_metadata_that_is_nested_too_deep_is_refused(served: Callable[..., httpx.Response]) -> None:
    fits = served("POST", "/ai/jobs", job(metadata={"a": nested(texts.MAX_METADATA_DEPTH - 1)}))
    assert fits.status_code == 202
    response = served("POST", "/ai/jobs", job(metadata={"a": nested(texts.MAX_METADATA_DEPTH)}))
    assert response.status_code == 400
    assert [item["field"] for item in response.json()["errors"]] == ["options.metadata"]


@pytest.mark.parametrize("depth", [250, 10_000, 1_000_000])
def test_a_body_that_is_nested_too_deep_is_refused_before_it_is_built(
    served: Callable[..., httpx.Response], depth: int
) -> None:
    body = json.dumps(job(metadata={"a": 0})).replace("0", "[" * depth + "]" * depth)
    response = served("POST", "/ai/jobs", body.encode())
    assert response.status_code == 400


@pytest.mark.parametrize("model", [SubmitBody, BatchBody, ChainBody, GraphBody, ScheduleBody])
def test_the_bounds_are_in_the_description_of_the_api(model: Any) -> None:
    found = json.dumps(model.model_json_schema())
    assert json.dumps(texts.PATTERN)[1:-1] in found
