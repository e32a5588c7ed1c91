"""Submitting, looking and cancelling over HTTP."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from tests.http.conftest import chat, is_problem
from tests.http.fakes import DictAdapter


async def test_a_job_is_accepted_with_its_id_and_location(client: httpx.AsyncClient, adapter: DictAdapter) -> None:
    response = await client.post("/ai/jobs", json={"payload": chat(), "priority": "high"})
    assert response.status_code == 202
    job_id = response.json()["jobId"]
    assert response.json() == {"jobId": job_id, "status": "queued"}
    assert response.headers["location"] == f"/ai/jobs/{job_id}"
    assert adapter.jobs[job_id].info.priority == "high"


@pytest.mark.parametrize(
    ("body", "priority"),
    [
        ({}, "medium"),
        ({"priority": 15}, "urgent"),
        ({"priority": None}, "medium"),
        ({"options": {"priority": "low"}}, "low"),
        ({"options": {"priority": 10}}, "high"),
        ({"priority": "low", "options": {"priority": "low"}}, "low"),
    ],
)
async def test_the_priority_may_stand_in_either_place(
    client: httpx.AsyncClient, adapter: DictAdapter, body: dict[str, object], priority: str
) -> None:
    response = await client.post("/ai/jobs", json={"payload": chat(), **body})
    assert adapter.jobs[response.json()["jobId"]].info.priority == priority


async def test_two_priorities_that_differ_are_refused(client: httpx.AsyncClient, adapter: DictAdapter) -> None:
    body = {"payload": chat(), "priority": "low", "options": {"priority": "high"}}
    response = await client.post("/ai/jobs", json=body)
    assert is_problem(response, 400, "invalid_input")
    assert response.json()["errors"][0]["field"] == "priority"
    assert not adapter.jobs


async def test_a_job_is_shown_in_camel_case(client: httpx.AsyncClient) -> None:
    options = {"tags": ["a"], "metadata": {"user_id": 7}, "maxRetries": 1}
    submitted = await client.post("/ai/jobs", json={"payload": chat(), "options": options})
    response = await client.get(submitted.headers["location"])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    job = response.json()
    assert job.pop("createdAt").endswith("Z")
    assert job == {
        "jobId": submitted.json()["jobId"],
        "status": "queued",
        "priority": "medium",
        "type": "chat_completion",
        "provider": "openai",
        "model": "m",
        "tags": ["a"],
        "metadata": {"user_id": 7},
    }


async def test_an_id_in_capitals_finds_the_same_job_and_in_other_digits_none(client: httpx.AsyncClient) -> None:
    job_id = (await client.post("/ai/jobs", json={"payload": chat()})).json()["jobId"]
    assert (await client.get(f"/ai/jobs/{job_id.upper()}")).json()["jobId"] == job_id
    arabic = "".join(chr(0x660 + int(each)) if each in "0123456789" else each for each in job_id)
    assert is_problem(await client.get(f"/ai/jobs/{arabic}"), 404, "job_not_found")


@pytest.mark.parametrize(
    "job_id", ["67d9c59c-7d02-4222-83b5-7e1dce9907fd", "nonsense", "batch", "%00", "%F0%9F%98%80", "x" * 5_000]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_job_is_not_found(client: httpx.AsyncClient, method: str, job_id: str) -> None:
    response = await client.request(method, f"/ai/jobs/{job_id}")
    assert is_problem(response, 404, "job_not_found")
    assert response.json()["error"].startswith("Job not found")


async def test_a_waiting_job_is_cancelled_and_a_second_cancel_says_so(client: httpx.AsyncClient) -> None:
    path = (await client.post("/ai/jobs", json={"payload": chat()})).headers["location"]
    assert (await client.delete(path)).json() == {"cancelled": True, "status": "cancelled"}
    assert (await client.delete(path)).json() == {"cancelled": False, "status": "cancelled"}


async def test_the_same_job_submitted_twice_is_one(client: httpx.AsyncClient, adapter: DictAdapter) -> None:
    body = {"payload": chat(), "options": {"jobId": str(uuid4())}}
    answers = [await client.post("/ai/jobs", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert len(adapter.jobs) == 1


async def test_another_job_under_a_taken_id_is_a_conflict(client: httpx.AsyncClient, adapter: DictAdapter) -> None:
    options = {"jobId": str(uuid4())}
    await client.post("/ai/jobs", json={"payload": chat(), "options": options})
    response = await client.post("/ai/jobs", json={"payload": chat(model="other"), "options": options})
    assert is_problem(response, 409, "duplicate_job")
    assert options["jobId"] in response.json()["error"]
    assert adapter.jobs[options["jobId"]].info.model == "m"


async def test_a_batch_of_thousands_is_accepted_in_order(client: httpx.AsyncClient, adapter: DictAdapter) -> None:
    jobs = [chat(model=f"m{number}", messages=[{"role": "user", "content": "x"}]) for number in range(900)]
    response = await client.post("/ai/jobs/batch", json={"jobs": jobs, "options": {"priority": "low", "name": "night"}})
    assert response.status_code == 202
    batch = response.json()
    assert batch["batchId"].startswith("batch-")
    assert (batch["status"], batch["total"]) == ("processing", 900)
    infos = [adapter.jobs[job_id].info for job_id in batch["jobIds"]]
    assert [info.model for info in infos] == [job["model"] for job in jobs]
    assert {(info.priority, info.batch_id) for info in infos} == {("low", batch["batchId"])}


async def test_snake_case_names_are_accepted_too(client: httpx.AsyncClient, adapter: DictAdapter) -> None:
    response = await client.post("/ai/jobs", json={"payload": chat(), "options": {"max_retries": 1}})
    assert response.status_code == 202


async def test_no_route_keeps_a_job_of_another_method(client: httpx.AsyncClient) -> None:
    response = await client.put("/ai/jobs", json={})
    assert is_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/ai", "/ai/jobs/a/b", "/ai/nothing"])
async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    assert is_problem(await client.get(path), 404, "not_found")
