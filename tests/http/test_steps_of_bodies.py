"""What one step of the event loop reads of a body: some jobs, some bytes, and few of the errors."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pydantic
import pytest

from aiqueue.client.schedule_models import ScheduleBody
from aiqueue.errors import FieldError, ValidationError
from aiqueue.models import BatchBody, ChainBody, FanInBody, GraphBody, SubmitBody
from aiqueue.testing.jobs import chat
from serve import bodies, body_fields
from serve.bodies import PART_BYTES, parse_batch, parse_body, parse_chain, parse_graph
from serve.routes.dead_letters import DeleteBody, RedriveBody, RedrivePatch
from tests.http.conftest import fields_of
from tests.http.rig import Rig

Parse = Callable[[bytes], Awaitable[pydantic.BaseModel]]
KINDS: dict[str, tuple[type[pydantic.BaseModel], Parse, int]] = {
    "jobs": (BatchBody, parse_batch, 10_000),
    "steps": (ChainBody, parse_chain, 1_000),
    "nodes": (GraphBody, parse_graph, 10_000),
}


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was given to pydantic, in order."""
    seen: list[int] = []
    validated = bodies._validated

    def counted(model: type[Any], raw: bytes) -> Any:
        seen.append(len(raw))
        return validated(model, raw)

    monkeypatch.setattr(bodies, "_validated", counted)
    return seen


def body_of(field: str, jobs: list[Any]) -> bytes:
    items = {f"n{at}": {"payload": job} for at, job in enumerate(jobs)} if field == "nodes" else jobs
    return json.dumps({field: items}).encode()


@pytest.mark.parametrize("field", KINDS)
async def test_a_list_over_its_limit_is_refused_by_its_length_and_nothing_of_it_is_validated(
    field: str, sizes: list[int]
) -> None:
    model, parse, most = KINDS[field]
    raw = body_of(field, [chat("x")] * (most + 1))
    with pytest.raises(pydantic.ValidationError) as by_pydantic:
        model.model_validate_json(raw)
    with pytest.raises(ValidationError) as refused:
        await parse(raw)
    said = by_pydantic.value.errors()[0]["msg"]
    assert list(refused.value.errors) == [FieldError(field, said)]
    assert sizes == []


@pytest.mark.parametrize("field", KINDS)
@pytest.mark.parametrize("count", [20, 400])
async def test_no_step_validates_more_bytes_than_a_part_has(field: str, count: int, sizes: list[int]) -> None:
    _, parse, _ = KINDS[field]
    job = chat("x" * 40_000)
    await parse(body_of(field, [job] * count))
    assert max(sizes) <= PART_BYTES + 1_000
    assert len(sizes) >= count // 7


async def test_a_job_that_is_larger_than_a_part_is_validated_alone(sizes: list[int]) -> None:
    await parse_batch(body_of("jobs", [chat("x"), chat("y" * 2 * PART_BYTES), chat("z")]))
    assert [size > PART_BYTES for size in sizes] == [False, True, False]


@pytest.mark.parametrize("field", KINDS)
async def test_after_a_hundred_bad_jobs_no_more_are_validated(field: str, sizes: list[int]) -> None:
    _, parse, most = KINDS[field]
    with pytest.raises(ValidationError) as refused:
        await parse(
            json.dumps({field: {f"n{at}": {} for at in range(most)} if field == "nodes" else [{}] * most}).encode()
        )
    assert len(sizes) == 1
    assert len(refused.value.errors) >= 100


async def errors_of(model: type[pydantic.BaseModel], body: dict[str, Any]) -> list[FieldError]:
    """Return what a body is refused for, read as its route does."""
    parse = {of: parse for of, parse, _ in KINDS.values()}.get(model)
    raw = json.dumps(body).encode()
    with pytest.raises(ValidationError) as refused:
        await parse(raw) if parse else parse_body(model, raw)
    return list(refused.value.errors)


def wrong_in_many_places() -> dict[str, Any]:
    return chat("x") | {f"field-{number}": 0 for number in range(5_000)}


async def test_of_an_input_with_thousands_of_errors_a_hundred_are_made_and_the_text_says_so() -> None:
    for model, body in (
        (SubmitBody, {"payload": wrong_in_many_places()}),
        (SubmitBody, {"payload": chat("x")} | wrong_in_many_places()),
    ):
        with pytest.raises(ValidationError) as refused:
            parse_body(model, json.dumps(body).encode())
        assert len(refused.value.errors) == 100
        assert str(refused.value).endswith("; and at least 95 more")


async def test_a_job_with_thousands_of_errors_hides_no_other_bad_job(rig: Rig) -> None:
    jobs = [chat("x"), wrong_in_many_places(), chat("x"), {}, *[chat("x")] * 200, {}]
    answer = await rig.http.post("/ai/jobs/batch", json={"jobs": jobs})
    assert sorted({error["index"] for error in answer.json()["errors"]}) == [1, 3, 204]
    chain = await rig.http.post("/ai/chains", json={"steps": jobs})
    assert {tuple(field.split(".")[:2]) for field in fields_of(chain)} >= {("steps", "1")}


@pytest.mark.parametrize("field", KINDS)
async def test_a_body_of_thousands_of_unknown_fields_is_refused_and_few_are_looked_at(
    field: str, sizes: list[int]
) -> None:
    _, parse, _ = KINDS[field]
    unknown = {f"unknown-{number}": 0 for number in range(5_000)}
    good = json.loads(body_of(field, [chat("x")]))
    with pytest.raises(ValidationError) as refused:
        await parse(json.dumps(unknown | good).encode())
    assert len(refused.value.errors) == 100
    assert max(sizes) < 10_000


MANY = {f"unknown-{number}": 0 for number in range(5_000)}
EMBEDDING = {"type": "embedding", "provider": "p", "model": "m"}
IDS = {"job_ids": ["11111111-1111-4111-8111-111111111111"]}


@pytest.fixture
def errors_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many errors pydantic made, each time."""
    made: list[int] = []
    read = bodies.field_errors

    def counted(error: pydantic.ValidationError, **how: Any) -> list[FieldError]:
        made.append(error.error_count())
        return read(error, **how)

    monkeypatch.setattr(bodies, "field_errors", counted)
    return made


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (SubmitBody, {"payload": chat("x")} | MANY),
        (SubmitBody, {"payload": chat("x") | MANY}),
        (SubmitBody, {"payload": chat("x"), "options": MANY}),
        (SubmitBody, {"payload": chat("x") | {"config": MANY}}),
        (SubmitBody, {"payload": chat("x") | {"messages": [{"role": "user", "content": "x"} | MANY]}}),
        (FanInBody, IDS | {"payload": chat("x")} | MANY),
        (ScheduleBody, {"payload": chat("x"), "name": "n", "cronExpression": "@daily"} | MANY),
        (RedrivePatch, MANY),
        (RedriveBody, IDS | MANY),
        (DeleteBody, IDS | MANY),
        (BatchBody, MANY),
        (BatchBody, MANY | {"jobs": 7}),
        (BatchBody, MANY | {"jobs": []}),
        (BatchBody, {"jobs": [chat("x"), chat("x") | MANY]}),
        (ChainBody, {"steps": [{"payload": chat("x") | MANY}]}),
        (ChainBody, {"steps": [chat("x") | MANY]}),
        (GraphBody, {"nodes": {"a": {"payload": chat("x")} | MANY}}),
        (GraphBody, {"nodes": {"a": {"payload": chat("x") | MANY}}}),
    ],
)
async def test_of_thousands_of_unknown_fields_anywhere_pydantic_sees_a_hundred(
    model: type[pydantic.BaseModel], body: dict[str, Any], errors_made: list[int]
) -> None:
    errors = await errors_of(model, body)
    assert sum(errors_made) <= 110
    assert any("unknown-0" in error.field for error in errors)


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (
            SubmitBody,
            {"payload": chat("x") | {"messages": [{"role": "user"}, *[{}] * 5_000]}},
            "payload.messages.1.role",
        ),
        (
            SubmitBody,
            {"payload": chat("x") | {"messages": [{"role": "user", "content": [0] * 5_000}]}},
            "payload.messages.0.content.0",
        ),
        (
            SubmitBody,
            {"payload": chat("x") | {"messages": [{"role": "user", "tool_calls": [0] * 5_000}]}},
            "payload.messages.0.tool_calls.0",
        ),
        (SubmitBody, {"payload": chat("x") | {"config": {"stop": [0] * 5_000}}}, "payload.config.stop.0"),
        (SubmitBody, {"payload": chat("x") | {"config": {"tools": [0] * 5_000}}}, "payload.config.tools.0"),
        (SubmitBody, {"payload": EMBEDDING | {"input": [0] * 5_000}}, "payload.input.0"),
        (SubmitBody, {"payload": chat("x"), "options": {"tags": [""] * 5_000}}, "options.tags.0"),
        (FanInBody, {"payload": chat("x"), "job_ids": [*IDS["job_ids"], *["x"] * 5_000]}, "job_ids.1"),
        (RedriveBody, {"job_ids": [0] * 5_000}, "job_ids.0"),
        (DeleteBody, {"job_ids": [0] * 5_000}, "job_ids.0"),
        (GraphBody, {"nodes": {"a": {"payload": chat("x"), "dependsOn": [0] * 5_000}}}, "nodes.a.dependsOn.0"),
    ],
)
async def test_a_list_is_left_at_its_first_wrong_item(
    model: type[pydantic.BaseModel], body: dict[str, Any], field: str, errors_made: list[int]
) -> None:
    errors = await errors_of(model, body)
    assert sum(errors_made) <= 3
    assert field in [error.field for error in errors]


@pytest.mark.parametrize("name", ["metadata", "extra_body"])
def test_an_object_with_names_of_the_callers_own_is_kept_whole(name: str) -> None:
    config, options = ({"extra_body": MANY}, {}) if name == "extra_body" else ({}, {"metadata": MANY})
    body = parse_body(SubmitBody, json.dumps({"payload": chat("x") | {"config": config}, "options": options}).encode())
    assert (body.payload.config.extra_body or body.options.metadata) == MANY


def test_a_body_of_nothing_but_numbers_is_not_looked_through_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(body_fields, "decode", lambda raw, kind: decoded.append(kind))
    raw = json.dumps({"payload": chat() | {"messages": [1] * 100_000}}).encode()
    with pytest.raises(ValidationError):
        parse_body(SubmitBody, raw)
    assert decoded == []
