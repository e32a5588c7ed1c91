"""``/ai/schedules`` over ASGI, with a whole queue behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import jsonschema
import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.testing.jobs import chat
from tests.http.conftest import fields_of, is_problem, served
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until

PATH = "/ai/schedules"
MINUTELY = {"payload": chat(), "name": "every minute", "cronExpression": "* * * * *"}


@pytest.fixture
async def harness() -> AsyncIterator[ClientHarness]:
    async with ClientHarness() as made:
        yield made


@pytest.fixture
async def client(harness: ClientHarness) -> AsyncIterator[httpx.AsyncClient]:
    async with served(AsyncAIQueueAdapter(harness.transport)) as made:  # type: ignore[arg-type]
        yield made


async def let_pass(harness: ClientHarness, seconds: float) -> None:
    harness.queue.clock.advance(seconds)
    harness.queue.service._ticker.tick()
    await turns()


async def test_a_schedule_is_added_shown_and_found_under_its_location(client: httpx.AsyncClient) -> None:
    body = {**MINUTELY, "cronExpression": "30 1 * * *", "timezone": "Europe/London", "priority": 10, "catchUp": "none"}
    added = await client.post(PATH, json=body)
    assert added.status_code == 201
    shown = added.json()
    assert (shown["catchUp"], shown["priority"], shown["enabled"]) == ("none", "high", True)
    runs = [datetime.fromisoformat(run) for run in shown["nextRuns"]]
    assert [f"{run:%H:%M}" for run in runs] == ["01:30"] * 5
    with_payload = shown | {"payload": MINUTELY["payload"]}
    assert (await client.get(added.headers["location"])).json() == with_payload
    assert (await client.get(f"{PATH}/every%20minute")).json() == with_payload


async def test_a_schedule_lives_through_all_its_routes(harness: ClientHarness, client: httpx.AsyncClient) -> None:
    await harness.work()
    path = (await client.post(PATH, json=MINUTELY)).headers["location"]
    await let_pass(harness, 60.0)
    await until(lambda: harness.queue.service.stats().adapter.completed_jobs)
    (run,) = (await client.get(f"{path}/history")).json()["runs"]
    assert (run["outcome"], (await client.get(f"/ai/jobs/{run['jobId']}")).json()["status"]) == ("fired", "completed")
    assert (await client.post(f"{path}/pause")).json()["enabled"] is False
    started = await client.post(f"{path}/run")
    assert started.status_code == 202
    assert (await client.get(f"/ai/jobs/{started.json()['jobId']}")).status_code == 200
    assert (await client.get(f"{path}/next")).json() == {"nextRuns": []}
    assert len((await client.post(f"{path}/resume")).json()["nextRuns"]) == 5
    assert len((await client.get(f"{path}/next?count=30")).json()["nextRuns"]) == 30
    (listed,) = (await client.get(PATH)).json()["schedules"]
    assert (listed["name"], listed["fired"]) == ("every minute", 2)
    assert (await client.delete(path)).json()["name"] == "every minute"
    assert (await client.get(PATH)).json() == {"schedules": []}
    for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/run"), ("GET", "/history")):
        assert is_problem(await client.request(method, f"{path}{end}"), 404, "schedule_not_found")


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"cronExpression": "0 0 30 2 *"}, ["cronExpression"]),
        ({"timezone": "Mars/Olympus"}, ["timezone"]),
        ({"jitter": -5}, ["jitter"]),
        ({"overlap": "sometimes"}, ["overlap"]),
        ({"options": {"runAt": "2030-01-01T00:00:00Z"}}, ["options.runAt"]),
        ({"priority": "low", "options": {"priority": "high"}}, ["priority"]),
        ({"payload": {**chat(), "provider": "nobody"}}, ["payload.provider"]),
        ({"payload": {**chat(), "messages": []}}, ["payload.messages"]),
        ({"cron": "@daily"}, ["cron"]),
    ],
)
async def test_bad_input_is_named_and_nothing_is_added(
    client: httpx.AsyncClient, changed: dict[str, Any], fields: list[str]
) -> None:
    response = await client.post(PATH, json={**MINUTELY, **changed})
    assert is_problem(response, 400, "invalid_input")
    assert fields_of(response) == fields
    assert (await client.get(PATH)).json() == {"schedules": []}


async def test_a_name_is_one_schedules(client: httpx.AsyncClient) -> None:
    first = await client.post(PATH, json=MINUTELY)
    assert (await client.post(PATH, json=MINUTELY)).json() == first.json()
    other = await client.post(PATH, json={**MINUTELY, "cronExpression": "@daily"})
    assert is_problem(other, 409, "schedule_exists")


@pytest.mark.parametrize("count", ["0", "101", "x", "-1", "1e2", ""])
async def test_a_count_of_runs_is_a_number_in_its_range(client: httpx.AsyncClient, count: str) -> None:
    await client.post(PATH, json=MINUTELY)
    response = await client.get(f"{PATH}/every minute/next", params={"count": count})
    assert is_problem(response, 400, "invalid_input")
    assert fields_of(response) == ["count"]


async def test_answers_are_as_described(harness: ClientHarness, client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()

    def check(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
        jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)

    check(MINUTELY, "ScheduleBody")
    added = await client.post(PATH, json=MINUTELY)
    check(added.json(), "ScheduleInfo")
    await let_pass(harness, 300.0)
    path = added.headers["location"]
    for end, name in (("", "ScheduleInfo"), ("/next", "NextRuns"), ("/history", "History")):
        check((await client.get(f"{path}{end}")).json(), name)
    check((await client.get(PATH)).json(), "ScheduleList")
    check((await client.post(f"{path}/run")).json(), "Started")
