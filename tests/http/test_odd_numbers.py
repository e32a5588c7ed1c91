"""A number that no queue can hold is refused by name, whichever route it comes to, and the next request is served."""

from __future__ import annotations

from typing import Any

import pytest

from aiqueue.client.schedule_models import ScheduledJobOptions
from aiqueue.models import BatchOptions, ChainOptions, GraphOptions, JobOptions
from aiqueue.testing.jobs import chat
from tests.http.conftest import fields_of, is_problem
from tests.http.rig import Rig

NOBODY = "01890000-0000-7000-8000-000000000000"
ROUTES: dict[str, tuple[type[JobOptions], dict[str, Any]]] = {
    "/ai/jobs": (JobOptions, {"payload": chat()}),
    "/ai/jobs/batch": (BatchOptions, {"jobs": [chat()]}),
    "/ai/chains": (ChainOptions, {"steps": [chat()]}),
    "/ai/graphs": (GraphOptions, {"nodes": {"a": {"payload": chat()}}}),
    "/ai/fan-in": (GraphOptions, {"jobIds": [NOBODY], "payload": chat("{{results}}")}),
    "/ai/schedules": (ScheduledJobOptions, {"name": "n", "cronExpression": "@daily", "payload": chat()}),
}
ODD = (2**36, 2**63, 2**64, 10**40, -(2**63) - 1)


def integers(model: type[JobOptions]) -> list[str]:
    """Return the JSON names of a model's fields that may be whole numbers."""
    found = model.model_json_schema(by_alias=True)["properties"]
    kinds = {name: [part.get("type") for part in field.get("anyOf", [field])] for name, field in found.items()}
    return [name for name, types in kinds.items() if "integer" in types]


def cases() -> list[tuple[str, str]]:
    return [(path, name) for path, (model, _) in ROUTES.items() for name in integers(model)]


@pytest.mark.parametrize("number", ODD)
@pytest.mark.parametrize(("path", "name"), cases())
async def test_a_number_out_of_range_is_refused_by_name_and_the_next_submit_works(
    path: str, name: str, number: int, rig: Rig
) -> None:
    _, body = ROUTES[path]
    refused = await rig.http.post(path, json={**body, "options": {name: number}}, timeout=10)
    assert is_problem(refused, 400, "invalid_input")
    assert fields_of(refused) == [f"options.{name}"]
    assert (await rig.http.post("/ai/jobs", json={"payload": chat()}, timeout=10)).status_code == 202


def test_all_routes_that_make_jobs_are_tried() -> None:
    assert {"maxConcurrency", "timeout", "delay", "maxRetries"} <= {name for _, name in cases()}
