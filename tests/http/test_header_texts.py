"""Texts in headers: an idempotency key is UTF-8, as in a body, and two that differ are refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from aiqueue import texts
from aiqueue.errors import ValidationError
from serve.callers import caller_scope, idempotency_key
from tests.http.conftest import chat, is_problem
from tests.http.rig import Rig
from tests.http.test_idempotency import CHAIN, CHAT, DAILY, GRAPH, total

KEYS = ["größe", "naïve", "ключ", "鍵", "👍", "nai\u0308ve"]
#: What sends a key: path, body.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/ai/jobs", {"payload": CHAT}),
    ("/ai/jobs/batch", {"jobs": [CHAT]}),
    ("/ai/chains", CHAIN),
    ("/ai/graphs", GRAPH),
    ("/ai/schedules", DAILY),
]
_HEADER_TEXT = st.text(max_size=300).map(str.strip)  # a server strips the spaces around a value


async def post(rig: Rig, path: str, body: dict[str, Any], *keys: bytes, name: bytes = b"idempotency-key") -> Any:
    headers = [(b"content-type", b"application/json"), *((name, key) for key in keys)]
    return await rig.http.post(path, content=json.dumps(body).encode(), headers=headers)


def read(*keys: bytes) -> str | None:
    return idempotency_key(Headers(raw=[(b"idempotency-key", key) for key in keys]))


@given(key=_HEADER_TEXT)
@example(key="naïve")
@example(key="\u00c3\u00af")  # what the bytes of "ï" look like as latin-1
@example(key="k" * 255)
def test_a_key_in_the_header_is_the_text_that_it_is_in_a_body(key: str) -> None:
    def outcome(call: Any) -> object:
        try:
            return call()
        except ValidationError as error:
            return [problem.message for problem in error.errors]

    expected = outcome(lambda: texts.IDEMPOTENCY_KEY.check("options.idempotencyKey", key))
    assert outcome(lambda: read(key.encode())) == expected


@pytest.mark.parametrize("key", KEYS)
async def test_a_key_in_the_header_and_in_the_body_makes_one_job(rig: Rig, key: str) -> None:
    in_body = {"payload": CHAT, "options": {"idempotencyKey": key}}
    answers: list[httpx.Response] = [
        await post(rig, "/ai/jobs", {"payload": CHAT}, key.encode()),
        await post(rig, "/ai/jobs", in_body),
        await post(rig, "/ai/jobs", in_body, key.encode()),
    ]
    python = await rig.adapter.submit_job(CHAT, {"idempotency_key": key})
    assert [answer.status_code for answer in answers] == [202, 202, 202], [answer.text for answer in answers]
    assert {answer.json()["jobId"] for answer in answers} == {python}
    assert await total(rig) == 1


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize("key", ["naïve".encode("latin-1"), b"\xff", "ключ".encode("cp1251"), b"a\xc3"])
async def test_a_key_that_is_not_utf_8_is_refused_with_a_sentence(
    rig: Rig, path: str, body: dict[str, Any], key: bytes
) -> None:
    answer = await post(rig, path, body, key)
    assert is_problem(answer, 400, "invalid_input")
    (said,) = answer.json()["errors"]
    assert said["field"] == "Idempotency-Key"
    assert said["message"].startswith("is not UTF-8")
    assert await total(rig) == 0


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_two_different_keys_are_refused_and_the_same_twice_is_one(
    rig: Rig, path: str, body: dict[str, Any]
) -> None:
    refused = await post(rig, path, body, b"first", b"second")
    assert is_problem(refused, 400, "invalid_input")
    assert refused.json()["errors"][0]["field"] == "Idempotency-Key"
    assert await total(rig) == 0
    answers = [await post(rig, path, body, *keys) for keys in ([b"first", b"first"], [b"first"])]
    assert answers[0].is_success
    assert answers[0].json() == answers[1].json()


async def test_a_retry_of_a_batch_refuses_two_different_keys(rig: Rig) -> None:
    batch = (await post(rig, "/ai/jobs/batch", {"jobs": [chat(provider="sim", model="model-a")]})).json()["batchId"]
    refused = await post(rig, f"/ai/batches/{batch}/retry-failed", {}, b"first", b"second")
    assert is_problem(refused, 400, "invalid_input")


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key"])
@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_a_request_of_two_callers_is_refused(rig: Rig, path: str, body: dict[str, Any], name: str) -> None:
    refused = await post(rig, path, body, b"Bearer secret-a", b"Bearer secret-b", name=name.encode())
    assert is_problem(refused, 400, "invalid_input")
    assert refused.json()["errors"][0]["field"] == name
    assert "secret" not in refused.text
    assert await total(rig) == 0
    assert (await post(rig, path, body, b"Bearer a", b"Bearer a", name=name.encode())).is_success


def test_a_caller_is_told_apart_by_each_byte_of_its_header() -> None:
    scopes = {caller_scope(Headers(raw=[(b"x-api-key", key)])) for key in (b"\xc3\xaf", b"\xef", b"i")}
    assert len(scopes) == 3


async def test_two_places_in_the_event_log_are_refused(rig: Rig) -> None:
    answer = await rig.http.get("/ai/events", headers=[(b"last-event-id", b"1"), (b"last-event-id", b"2")])
    assert is_problem(answer, 400, "invalid_input")
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"
