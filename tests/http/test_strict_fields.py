"""What a number, a flag and a level may be: the same over HTTP and in Python, in every field there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

from aiqueue.client.schedule_models import ScheduleBody, ScheduledJobOptions
from aiqueue.errors import DeadLetterNotFound, ValidationError
from aiqueue.models import (
    BatchBody,
    BatchOptions,
    ChainBody,
    ChainOptions,
    FanInBody,
    GraphBody,
    GraphNodeBody,
    GraphOptions,
    JobOptions,
    SubmitBody,
)
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.testing.jobs import chat
from aiqueue.validation import validate_job_payload
from serve.bodies import parse_body
from serve.routes.dead_letters import DeleteBody, RedriveBody, RedrivePatch
from tests.http.conftest import fields_of
from tests.http.rig import Rig

NOBODY = "01890000-0000-7000-8000-000000000000"
BODIES: dict[type[pydantic.BaseModel], dict[str, Any]] = {
    SubmitBody: {"payload": chat()},
    BatchBody: {"jobs": [chat()]},
    ChainBody: {"steps": [chat()]},
    GraphBody: {"nodes": {"a": {"payload": chat()}}},
    FanInBody: {"jobIds": [NOBODY], "payload": chat("{{results}}")},
    ScheduleBody: {"name": "n", "cronExpression": "@daily", "payload": chat()},
    RedrivePatch: {},
    RedriveBody: {"jobIds": [NOBODY]},
    DeleteBody: {"jobIds": [NOBODY]},
}
GIVEN: dict[str, Any] = {"true": True, "a text": "3", "a whole float": 3.0, "null": None}
ACCEPTED = {"integer": {"a whole float"}, "number": {"a whole float"}, "boolean": {"true"}}
IN_RANGE = {"timeout": 300, "maxFailedRatio": 1}


def kinds_of(model: type[pydantic.BaseModel]) -> Iterator[tuple[str, set[str]]]:
    """Yield the JSON names of a model's numbers and flags, each with the types that it may have."""
    for name, field in model.model_json_schema(by_alias=True)["properties"].items():
        types = {part.get("type") for part in field.get("anyOf", [field])}
        if types & set(ACCEPTED) and "enum" not in field and "priority" not in name:
            yield name, types


def cases() -> Iterator[tuple[type[pydantic.BaseModel], str, str, set[str]]]:
    for model in BODIES:
        for name, types in kinds_of(model):
            yield model, "", name, types
        if "options" in model.model_fields:
            options: Any = model.model_fields["options"].annotation
            for name, types in kinds_of(options):
                yield model, "options", name, types


def is_accepted(read: Any) -> bool:
    try:
        read()
    except (ValidationError, pydantic.ValidationError):
        return False
    return True


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(("model", "inside", "name", "types"), list(cases()))
def test_each_number_and_flag_takes_what_the_table_says_over_http_and_in_python(
    model: type[pydantic.BaseModel], inside: str, name: str, types: set[str], given: str
) -> None:
    value = GIVEN[given]
    if value is not None and value is not True:
        value = type(value)(IN_RANGE.get(name, 3))
    body = BODIES[model] | ({inside: {name: value}} if inside else {name: value})
    accepted = set.union(*(ACCEPTED.get(each, set()) for each in types)) | ({"null"} if "null" in types else set())
    by_json = is_accepted(lambda: parse_body(model, pydantic.TypeAdapter(Any).dump_json(body)))
    in_python = is_accepted(lambda: model.model_validate(body))
    assert (by_json, in_python) == (given in accepted, given in accepted)


def test_the_fields_that_were_lax_are_among_those_that_are_tried() -> None:
    names = {name for _, _, name, _ in cases()}
    assert {"maxRetries", "perSecond", "failFast", "stopOnError", "enabled", "jitter", "maxFailedRatio"} <= names


def optional_fields() -> Iterator[tuple[type[pydantic.BaseModel], dict[str, Any], str]]:
    """Yield all fields of bodies, options and nodes that may be absent, each with what must stand beside it."""
    inner = (JobOptions, BatchOptions, ChainOptions, GraphOptions, ScheduledJobOptions)
    nothing = dict[str, Any]()
    models = [*BODIES.items(), (GraphNodeBody, {"payload": chat()}), *((each, nothing) for each in inner)]
    for model, required in models:
        for name, field in model.model_fields.items():
            if not field.is_required():
                yield model, required, field.alias or name


@pytest.mark.parametrize(("model", "required", "name"), list(optional_fields()))
def test_null_is_as_absent_wherever_a_field_may_be_absent(
    model: type[pydantic.BaseModel], required: dict[str, Any], name: str
) -> None:
    absent = model.model_validate(required)
    with_null = required | {name: None}
    assert model.model_validate(with_null) == absent
    assert parse_body(model, json.dumps(with_null).encode()) == absent
    schema = model.model_json_schema()["properties"][name]
    assert "null" in [part.get("type") for part in schema.get("anyOf", [schema])], "OpenAPI says so too"


async def test_null_in_a_node_is_as_absent_in_python(rig: Rig) -> None:
    orchestrator = AsyncAIJobOrchestrator(rig.adapter)
    nodes = {
        "a": {"payload": chat(), "depends_on": None},
        "b": {"payload": chat(), "dependsOn": ["a"], "onError": None},
    }
    assert set(await orchestrator.submit_graph(nodes)) == {"a", "b"}


def test_a_payload_is_the_providers_own_so_a_whole_float_is_no_integer_in_it() -> None:
    payload = chat() | {"config": {"max_tokens": 3.0}}
    assert not is_accepted(lambda: parse_body(SubmitBody, json.dumps({"payload": payload}).encode()))
    assert not is_accepted(lambda: validate_job_payload(payload))


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(("name", "argument"), [("maxRetries", "max_retries"), ("perSecond", "per_second")])
async def test_a_redrive_takes_the_same_numbers_over_http_and_in_python(
    name: str, argument: str, given: str, rig: Rig
) -> None:
    answer = await rig.http.post("/ai/dead-letters/redrive", json={"jobIds": [NOBODY], name: GIVEN[given]})
    with pytest.raises((ValidationError, DeadLetterNotFound)) as refused:
        await rig.adapter.dead_letters.redrive([NOBODY], **{argument: GIVEN[given]})
    is_good = given in ("a whole float", "null")
    assert answer.status_code == (404 if is_good else 400), answer.text
    assert isinstance(refused.value, DeadLetterNotFound) is is_good


@pytest.mark.parametrize("given", [True, False, 1.0, 10.0, 7, 10**30, "10", "HIGH", [], 1, 15, "high", None], ids=repr)
async def test_a_priority_is_taken_or_refused_alike_wherever_it_stands(given: object, rig: Rig) -> None:
    schedule = BODIES[ScheduleBody]
    levels = []
    for path, body in (
        ("/ai/jobs", BODIES[SubmitBody] | {"priority": given}),
        ("/ai/jobs", BODIES[SubmitBody] | {"options": {"priority": given}}),
        ("/ai/schedules", schedule | {"name": "beside", "priority": given}),
        ("/ai/schedules", schedule | {"name": "inside", "options": {"priority": given}}),
    ):
        answer = await rig.http.post(path, json=body)
        if answer.status_code == 400:
            assert all("priority" in field for field in fields_of(answer))
            levels.append("refused")
        elif path == "/ai/jobs":
            levels.append((await rig.http.get(f"/ai/jobs/{answer.json()['jobId']}")).json()["priority"])
        else:
            levels.append(answer.json()["priority"])
    good = {1: "low", 15: "urgent", "high": "high", None: "medium"}
    known = given is None or type(given) in (int, str)
    assert levels == [good.get(given, "refused") if known else "refused"] * 4  # type: ignore[call-overload]


async def test_a_priority_that_is_null_in_options_leaves_the_one_beside_them(rig: Rig) -> None:
    beside = {"priority": "high", "options": {"priority": None}}
    job = await rig.http.post("/ai/jobs", json=BODIES[SubmitBody] | beside)
    schedule = await rig.http.post("/ai/schedules", json=BODIES[ScheduleBody] | beside)
    assert (await rig.http.get(f"/ai/jobs/{job.json()['jobId']}")).json()["priority"] == "high"
    assert schedule.json()["priority"] == "high"


async def test_a_fan_in_takes_null_for_no_policy_in_python_too(rig: Rig) -> None:
    job_id = await rig.adapter.submit_job(chat())
    orchestrator = AsyncAIJobOrchestrator(rig.adapter)
    assert await orchestrator.fan_in_job([job_id], chat("{{results}}"), on_error=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [1, 0, -5, 1.5, 20_000_000_001, True, "1", " 1700000000 ", "1.7e9", "-5.0"], ids=repr)
@pytest.mark.parametrize("name", ["runAt", "deadline"])
async def test_a_number_is_no_time(name: str, given: object, rig: Rig) -> None:
    answer = await rig.http.post("/ai/jobs", json=BODIES[SubmitBody] | {"options": {name: given}})
    assert (answer.status_code, fields_of(answer)) == (400, [f"options.{name}"])
    with pytest.raises(ValidationError):
        await rig.adapter.submit_job(chat(), {name: given})
