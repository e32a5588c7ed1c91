"""Statistics, health, start and stop, and the API's description of itself."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema
import pytest

from aiqueue.errors import QueueUnavailable
from serve.routes import stats
from tests.http.conftest import chat, is_problem, served
from tests.http.fakes import DictAdapter, unavailable


async def test_stats_have_the_parts_of_the_specification(client: httpx.AsyncClient) -> None:
    await client.post("/ai/jobs", json={"payload": chat()})
    shown = (await client.get("/ai/stats")).json()
    assert set(shown) == {"adapter", "orchestrator"}
    assert shown["adapter"]["queuedJobs"] == 1
    parts = ("totalBatches", "activeBatches", "totalSchedules", "activeSchedules", "scheduledRuns")
    assert shown["orchestrator"] == dict.fromkeys(parts, 0)


async def test_a_queue_that_answers_is_healthy(client: httpx.AsyncClient) -> None:
    response = await client.get("/ai/health")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["queueMs"] >= 0


async def test_a_queue_that_fails_is_unhealthy_while_the_front_lives() -> None:
    async with served(unavailable(QueueUnavailable("restarting"))) as client:
        health, live = await client.get("/ai/health"), await client.get("/ai/live")
    assert is_problem(health, 503, "queue_unavailable")
    assert "restarting" in health.json()["error"]
    assert (live.status_code, live.json()) == (200, {"status": "ok"})


async def test_a_queue_that_hangs_is_unhealthy_in_time(
    adapter: DictAdapter, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter.hang = True
    monkeypatch.setattr(stats, "HEALTH_TIMEOUT_S", 0.01)
    response = await client.get("/ai/health")
    assert is_problem(response, 503, "queue_unavailable")
    assert response.headers["retry-after"] == "1"


async def test_the_adapter_starts_and_stops_with_the_application(adapter: DictAdapter) -> None:
    async with served(adapter):
        assert (adapter.started, adapter.stopped) == (1, 0)
    assert (adapter.started, adapter.stopped) == (1, 1)


async def test_the_description_names_every_route_and_its_failures(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    found = {
        (method.upper(), path): {int(status) for status in operation["responses"]}
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    }
    assert found == {
        ("POST", "/ai/jobs"): {202, 400, 408, 409, 413, 415, 422, 429, 500, 503},
        ("POST", "/ai/jobs/batch"): {202, 400, 408, 413, 415, 422, 429, 500, 503},
        ("GET", "/ai/jobs/{job_id}"): {200, 404, 500, 503},
        ("DELETE", "/ai/jobs/{job_id}"): {200, 404, 500, 503},
        ("POST", "/ai/schedules"): {201, 400, 404, 408, 409, 413, 415, 422, 500, 503},
        ("GET", "/ai/schedules"): {200, 500, 503},
        ("GET", "/ai/schedules/{schedule}"): {200, 404, 500, 503},
        ("DELETE", "/ai/schedules/{schedule}"): {200, 404, 500, 503},
        ("POST", "/ai/schedules/{schedule}/pause"): {200, 404, 500, 503},
        ("POST", "/ai/schedules/{schedule}/resume"): {200, 400, 404, 500, 503},
        ("POST", "/ai/schedules/{schedule}/run"): {202, 400, 404, 409, 429, 500, 503},
        ("GET", "/ai/schedules/{schedule}/next"): {200, 400, 404, 500, 503},
        ("GET", "/ai/schedules/{schedule}/history"): {200, 404, 500, 503},
        ("GET", "/ai/batches/{batch_id}"): {200, 404, 500, 503},
        ("GET", "/ai/batches/{batch_id}/results"): {200, 400, 404, 500, 503},
        ("POST", "/ai/chains"): {202, 400, 408, 413, 415, 422, 429, 500, 503},
        ("GET", "/ai/chains/{batch_id}"): {200, 404, 500, 503},
        ("POST", "/ai/graphs"): {202, 400, 408, 413, 415, 422, 429, 500, 503},
        ("POST", "/ai/fan-in"): {202, 400, 408, 413, 415, 422, 429, 500, 503},
        ("GET", "/ai/graphs/{batch_id}"): {200, 404, 500, 503},
        **{
            ("POST", f"/ai/{path}"): {200, 400, 404, 415, 500, 503}
            for path in (
                *(f"batches/{{batch_id}}/{action}" for action in ("cancel", "pause", "resume", "retry-failed")),
                *(
                    f"{kind}/{{batch_id}}/{action}"
                    for kind in ("chains", "graphs")
                    for action in ("cancel", "retry-failed")
                ),
            )
        },
        ("GET", "/ai/events"): {200, 400, 500, 503},
        ("GET", "/ai/jobs/{job_id}/events"): {200, 400, 404, 500, 503},
        ("GET", "/ai/dead-letters"): {200, 400, 500, 503},
        ("POST", "/ai/dead-letters/redrive"): {202, 400, 404, 408, 413, 415, 422, 429, 500, 503},
        ("POST", "/ai/dead-letters/delete"): {200, 400, 408, 413, 415, 500, 503},
        ("GET", "/ai/dead-letters/{job_id}"): {200, 404, 500, 503},
        ("DELETE", "/ai/dead-letters/{job_id}"): {200, 404, 500, 503},
        ("POST", "/ai/dead-letters/{job_id}/redrive"): {202, 400, 404, 408, 413, 415, 422, 429, 500, 503},
        ("GET", "/ai/stats"): {200, 500, 503},
        ("GET", "/ai/health"): {200, 500, 503},
        ("GET", "/ai/live"): {200, 500},
    }
    assert all(operation["description"] for path in described["paths"].values() for operation in path.values())


async def test_the_description_is_whole(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    schemas = described["components"]["schemas"]
    for reference in _references(described):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert (await client.get("/docs")).status_code == 200


async def test_bodies_and_answers_are_as_described(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()

    def check(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
        jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)

    one = {"payload": chat(), "priority": "low", "options": {"maxRetries": 1}}
    many = {"jobs": [chat()], "options": {"name": "night"}}
    check(one, "SubmitBody")
    check(many, "BatchBody")
    accepted = await client.post("/ai/jobs", json=one)
    check(accepted.json(), "Accepted")
    check((await client.post("/ai/jobs/batch", json=many)).json(), "BatchAccepted")
    check((await client.get(accepted.headers["location"])).json(), "JobInfo")
    check((await client.delete(accepted.headers["location"])).json(), "Cancellation")
    check((await client.get("/ai/stats")).json(), "Stats")
    check((await client.get("/ai/health")).json(), "Health")
    check((await client.post("/ai/jobs", json={})).json(), "Problem")
    check((await client.get("/ai/jobs/x")).json(), "Problem")
    with pytest.raises(jsonschema.ValidationError):
        check({"payload": chat(), "urgent": True}, "SubmitBody")


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(_references, part.values()))
    return set().union(*map(_references, part)) if isinstance(part, list) else set()
