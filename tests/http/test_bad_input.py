"""Whatever is wrong with a body is answered with a 4xx problem that names the field, and nothing is enqueued."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.conftest import MAX_BODY_BYTES, chat, fields_of, is_problem, served
from tests.http.fakes import MAX_PAYLOAD_BYTES, DictAdapter

JSON = {"content-type": "application/json"}
RED_HERRINGS = ("[", "chat_completion", "literal", ".str")  # of pydantic's paths


@pytest.fixture(autouse=True)
def nothing_is_enqueued(adapter: DictAdapter) -> Any:
    """Check after each test here that the queue is empty."""
    yield
    assert not adapter.jobs


def body(options: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    return {"payload": chat(**changed)} | ({} if options is None else {"options": options})


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({}, ["payload"]),
        ([], ["body"]),
        (None, ["body"]),
        ({"payload": 3}, ["payload"]),
        ({"payload": {}}, ["payload.type"]),
        (body(type="nonsense"), ["payload.type"]),
        (body(provider="nobody"), ["payload.provider"]),
        (body(provider="local", model="large"), ["payload.model"]),
        (body(provider="local", model="tiny", type="embedding", messages=..., input="x"), ["payload.type"]),
        (body(provider=...), ["payload.provider"]),
        (body(model=""), ["payload.model"]),
        (body(model=7), ["payload.model"]),
        (body(messages=[]), ["payload.messages"]),
        (body(messages="Hi"), ["payload.messages"]),
        (body(messages=[{"role": "user", "content": "x"}, {"role": "boss"}]), ["payload.messages.1.role"]),
        (body(messages=[{"role": "user", "content": 7}]), ["payload.messages.0.content"]),
        (body(mesages=[]), ["payload.mesages"]),
        (body(config={"temperature": 9, "maxTokens": 1}), ["payload.config.temperature", "payload.config.maxTokens"]),
        (body(config={"temperature": "0.7"}), ["payload.config.temperature"]),
        (body(config={"stop": 7}), ["payload.config.stop"]),
        (body() | {"priority": "now"}, ["priority"]),
        (body() | {"priority": 7}, ["priority"]),
        (body() | {"urgent": True}, ["urgent"]),
        (body() | {"str": 1}, ["str"]),
        (body({"priority": "now"}), ["options.priority"]),
        (body({"priority": 7}), ["options.priority"]),
        (body({"timeout": 30}), ["options.timeout"]),
        (body({"maxRetries": -1}), ["options.maxRetries"]),
        (body({"retries": 3}), ["options.retries"]),
        (body({"tags": "a"}), ["options.tags"]),
        (body({"tags": [""]}), ["options.tags.0"]),
        (body({"jobId": "7"}), ["options.jobId"]),
    ],
)
async def test_a_wrong_field_is_named(client: httpx.AsyncClient, sent: Any, fields: list[str]) -> None:
    response = await client.post("/ai/jobs", json=sent)
    assert is_problem(response, 400, "invalid_input")
    assert sorted(set(fields_of(response))) == sorted(fields)
    assert not any(noise in name for name in fields_of(response) for noise in RED_HERRINGS)
    assert not response.json()["retryable"]
    assert fields[0] in response.json()["error"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "EOF"),
        (b"{", "line 1 column 1"),
        (b'{"payload": }', "line 1 column 13"),
        (b'{"payload": "\xff\xfe"}', "unicode"),
        (b'{"payload": "\\ud800"}', "line 1"),
        (b"\x00", "line 1"),
        (b"[" * 10_000, "recursion"),
        (json.dumps(body({"metadata": {"x": float("nan")}})).encode(), "finite"),
        (json.dumps(body({"metadata": {"x": float("-inf")}})).encode(), "finite"),
        (json.dumps(body({"metadata": {"x": 0}})).replace(": 0", ": 1e999").encode(), "finite"),
        (json.dumps(body({"metadata": {"x": 0}})).replace(": 0", ": " + "9" * 5_000).encode(), "out of range"),
    ],
)
async def test_what_is_no_json_is_refused_with_its_place(client: httpx.AsyncClient, raw: bytes, said: str) -> None:
    response = await client.post("/ai/jobs", content=raw, headers=JSON)
    assert is_problem(response, 400, "invalid_input")
    assert fields_of(response) == ["body"]
    assert said in response.json()["errors"][0]["message"]


async def test_a_payload_over_its_limit_is_too_large(client: httpx.AsyncClient) -> None:
    message = {"role": "user", "content": "x" * MAX_PAYLOAD_BYTES}
    response = await client.post("/ai/jobs", json=body(messages=[message]))
    assert is_problem(response, 413, "payload_too_large")
    assert fields_of(response) == ["payload"]


async def test_every_bad_job_of_a_batch_is_named_with_its_index(client: httpx.AsyncClient) -> None:
    jobs = [chat() for _ in range(50)]
    jobs[3] = chat(messages=[])
    jobs[7] = chat(provider="nobody")
    jobs[20] = chat(type="nonsense")
    jobs[49] = chat(config={"temperature": 9})
    response = await client.post("/ai/jobs/batch", json={"jobs": jobs})
    assert is_problem(response, 400, "invalid_input")
    found = [(item["index"], item["field"]) for item in response.json()["errors"]]
    assert found == [(3, "messages"), (7, "provider"), (20, "type"), (49, "config.temperature")]


async def test_a_batch_with_wrong_options_and_jobs_names_both(client: httpx.AsyncClient) -> None:
    response = await client.post("/ai/jobs/batch", json={"jobs": [chat(), 7], "options": {"speed": 1}})
    assert is_problem(response, 400, "invalid_input")
    errors = response.json()["errors"]
    assert [item["field"] for item in errors if "index" not in item] == ["options.speed"]
    assert [item["index"] for item in errors if "index" in item] == [1]


async def test_the_first_hundred_of_many_bad_jobs_are_named(client: httpx.AsyncClient) -> None:
    bad = {"type": "chat_completion"} | {f"unknown-{number}": 0 for number in range(30)}
    response = await client.post("/ai/jobs/batch", json={"jobs": [chat(), *[bad] * 150]})
    assert is_problem(response, 400, "invalid_input")
    errors = response.json()["errors"]
    assert sorted({item["index"] for item in errors}) == list(range(1, 101))
    assert len(errors) == 100 * 10


@pytest.mark.parametrize(
    ("sent", "field"),
    [({"jobs": []}, "jobs"), ({}, "jobs"), ({"jobs": [chat()], "options": {"jobId": "x"}}, "options.jobId")],
)
async def test_a_batch_that_is_none_is_refused(client: httpx.AsyncClient, sent: Any, field: str) -> None:
    response = await client.post("/ai/jobs/batch", json=sent)
    assert is_problem(response, 400, "invalid_input")
    assert fields_of(response) == [field]


async def test_a_batch_of_too_many_jobs_is_refused(adapter: DictAdapter) -> None:
    async with served(adapter) as client:
        response = await client.post("/ai/jobs/batch", content=b'{"jobs":[' + b"0," * 10_000 + b"0]}", headers=JSON)
    assert is_problem(response, 400, "invalid_input")
    assert fields_of(response) == ["jobs"]


async def test_a_long_field_name_is_cut(client: httpx.AsyncClient) -> None:
    response = await client.post("/ai/jobs", json=body() | {"x" * 50_000: 1})
    assert is_problem(response, 400, "invalid_input")
    assert len(response.content) < 10_000


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
odd_payloads = st.fixed_dictionaries(
    {name: st.just(value) | any_json for name, value in chat().items()}, optional={"config": any_json, "x": any_json}
)
odd_options = st.dictionaries(
    st.sampled_from(["priority", "timeout", "tags", "metadata", "jobId", "maxRetries", "x"]), any_json, max_size=3
)
odd_submits = st.fixed_dictionaries(
    {"payload": odd_payloads | any_json}, optional={"priority": any_json, "options": odd_options}
)
odd_batches = st.fixed_dictionaries(
    {"jobs": st.lists(odd_payloads, max_size=3) | any_json}, optional={"options": odd_options}
)
odd_bodies = any_json | odd_submits | odd_batches
raw_bodies = st.binary(max_size=200) | odd_bodies.map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("path", ["/ai/jobs", "/ai/jobs/batch"])
@given(raw=raw_bodies)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_makes_the_server_fail(path: str, raw: bytes) -> None:
    assert len(raw) < MAX_BODY_BYTES
    async with served(DictAdapter()) as client:
        response = await client.post(path, content=raw, headers=JSON)
    assert response.status_code == 202 or is_problem(response, 400, "invalid_input")
