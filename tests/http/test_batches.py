"""Batches, chains and graphs over HTTP, before a real queue on the same loop."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import InvalidRequest
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat, settings
from tests.http.conftest import fields_of, is_problem, served
from tests.http.rig import Rig
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until

NOBODY = "batch-00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def system() -> AsyncIterator[ClientHarness]:
    """Return a queue without a worker."""
    async with ClientHarness(settings(retry_s=0.0)) as made:
        yield made


@pytest.fixture
async def http(system: ClientHarness) -> AsyncIterator[httpx.AsyncClient]:
    """Return an HTTP client before it."""
    async with served(AsyncAIQueueAdapter(system.transport)) as client:  # type: ignore[arg-type]
        yield client


async def ended(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Return a batch when it has ended."""
    for _ in range(2_000):
        body: dict[str, Any] = (await http.get(path)).json()
        if "endedAt" in body:
            return body
    raise AssertionError(f"{path} did not end: {body}")


async def test_a_batch_is_submitted_watched_and_read(system: ClientHarness, http: httpx.AsyncClient) -> None:
    options = {"name": "n", "maxConcurrency": 2, "tags": ["t"]}
    sent = await http.post("/ai/jobs/batch", json={"jobs": [chat(str(n)) for n in range(5)], "options": options})
    path = f"/ai/batches/{sent.json()['batchId']}"
    waiting = (await http.get(path)).json()
    assert (waiting["status"], waiting["total"], waiting["waiting"], waiting["maxConcurrency"]) == (
        "processing",
        5,
        5,
        2,
    )
    await system.work()
    body = await ended(http, path)
    assert (body["status"], body["completed"], body["percent"], body["name"]) == ("completed", 5, 100.0, "n")
    page = (await http.get(f"{path}/results", params={"limit": 3})).json()
    assert [(each["index"], each["job"]["status"]) for each in page["results"]] == [(n, "completed") for n in range(3)]
    assert (page["after"], page["isLast"]) == (3, False)
    lines = await http.get(f"{path}/results", params={"after": 3, "limit": 500, "format": "jsonl"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert (lines.headers["x-after"], lines.headers["x-is-last"]) == ("5", "true")
    assert [json.loads(line)["index"] for line in lines.text.splitlines()] == [3, 4]
    by_end = (await http.get(f"{path}/results", params={"order": "ended"})).json()
    assert sorted(each["index"] for each in by_end["results"]) == list(range(5))


async def test_all_results_come_as_lines_read_page_by_page_as_the_reader_takes_them(
    system: ClientHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiqueue.service.batch_pages._PAGE_BYTES", 1)
    async with Rig(settings(retry_s=0.0)) as rig, rig.serving():
        jobs = [chat(str(n)) for n in range(40)]
        path = f"/ai/batches/{(await rig.http.post('/ai/jobs/batch', json={'jobs': jobs})).json()['batchId']}"
        address = f"{path}/results?format=jsonl&after=2"
        assert (await rig.http.get(address)).text == "", "none has ended"
        await rig.work()
        await ended(rig.http, path)
        asked = rig.transport.calls["batch_results"]
        async with rig.sse(address) as reader:
            reader.taking.clear()
            before = rig.transport.calls["batch_results"]
            await turns(500)
            assert rig.transport.calls["batch_results"] <= before + 1 < asked + 38, "nothing is read ahead of a reader"
            reader.taking.set()
            bodies = [await reader.take() for _ in range(39)]
        lines = b"".join(body["body"] for body in bodies).splitlines()
        assert [json.loads(line)["index"] for line in lines] == list(range(2, 40))
        assert [body["more_body"] for body in bodies] == [True] * 38 + [False]
        assert rig.transport.calls["batch_results"] == asked + 38
        by_end = (await rig.http.get(f"{path}/results?format=jsonl&order=ended")).text.splitlines()
        assert sorted(json.loads(line)["index"] for line in by_end) == list(range(40))
        assert [json.loads(line)["after"] for line in by_end] == list(range(1, 41))
        assert is_problem(await rig.http.get(f"/ai/batches/{NOBODY}/results?format=jsonl"), 404, "batch_not_found")


async def test_a_batch_is_paused_resumed_retried_and_cancelled(system: ClientHarness, http: httpx.AsyncClient) -> None:
    def fail(request: ProviderRequest) -> None:
        raise InvalidRequest("Provider sim: 400", status=400)

    system.provider.behave = fail
    sent = await http.post("/ai/jobs/batch", json={"jobs": [chat(str(n)) for n in range(3)]})
    path = f"/ai/batches/{sent.json()['batchId']}"
    assert (await http.post(f"{path}/pause")).json()["status"] == "paused"
    await system.work()
    assert not system.provider.calls
    assert (await http.post(f"{path}/resume")).json()["status"] == "processing"
    body = await ended(http, path)
    assert (body["status"], body["failed"], body["errors"]) == ("failed", 3, {"invalid_request": 3})
    assert body["firstErrors"][0]["message"] == "Provider sim: 400"
    system.provider.hold()
    once = {"Idempotency-Key": "again"}
    assert (await http.post(f"{path}/retry-failed", headers=once)).json()["retried"] == 3
    await until(lambda: system.provider.running == 3)
    assert (await http.post(f"{path}/cancel")).status_code == 200
    assert (await ended(http, path))["cancelled"] == 3


async def test_a_retry_that_is_sent_again_with_its_key_retries_nothing_more(
    system: ClientHarness, http: httpx.AsyncClient
) -> None:
    def fail(request: ProviderRequest) -> None:
        raise InvalidRequest("Provider sim: 400", status=400)

    system.provider.behave = fail
    sent = await http.post("/ai/jobs/batch", json={"jobs": [chat(str(n)) for n in range(3)]})
    path = f"/ai/batches/{sent.json()['batchId']}"
    await system.work()
    await ended(http, path)
    key = {"Idempotency-Key": "once"}
    assert (await http.post(f"{path}/retry-failed", headers=key)).json()["retried"] == 3
    await ended(http, path)  # these fail as well
    assert (await http.post(f"{path}/retry-failed", headers=key)).json()["retried"] == 3
    assert len(system.provider.calls) == 6
    same = await AsyncAIJobOrchestrator(await system.client()).retry_failed(path.split("/")[-1], idempotency_key="once")
    assert (same.retried, len(system.provider.calls)) == (3, 6)  # in Python it is the same key
    other = key | {"X-API-Key": "of another caller"}
    assert (await http.post(f"{path}/retry-failed", headers=other)).json()["retried"] == 3


async def test_a_chain_runs_and_is_drawn(system: ClientHarness, http: httpx.AsyncClient) -> None:
    steps = [{"name": "first", "payload": chat("a")}, chat("then {{steps.first.content}}")]
    sent = await http.post("/ai/chains", json={"steps": steps, "options": {"name": "c", "stopOnError": False}})
    assert sent.status_code == 202
    path = f"/ai/chains/{sent.json()['chainId']}"
    nodes = (await http.get(path)).json()["nodes"]
    assert [(node["name"], node["status"]) for node in nodes] == [("first", "queued"), ("1", "blocked")]
    assert nodes[1]["dependsOn"] == ["first"]
    await system.work()
    assert (await ended(http, f"/ai/batches/{sent.json()['chainId']}"))["completed"] == 2
    assert system.provider.calls[1].body["messages"][0]["content"] == "then Hi there"
    picture = await http.get(path, params={"format": "mermaid"})
    assert picture.text.startswith("flowchart TD\n")
    assert [node["jobId"] for node in nodes] == sent.json()["jobIds"]


async def test_a_graph_runs_and_is_cancelled_as_one(system: ClientHarness, http: httpx.AsyncClient) -> None:
    nodes = {"a": {"payload": chat("a")}, "b": {"payload": chat("b"), "dependsOn": ["a"], "onError": "skip"}}
    sent = await http.post("/ai/graphs", json={"nodes": nodes})
    assert sent.status_code == 202
    assert set(sent.json()["jobIds"]) == {"a", "b"}
    path = f"/ai/graphs/{sent.json()['graphId']}"
    assert (await http.post(f"{path}/cancel")).json()["cancelled"] == 2
    assert {node["status"] for node in (await http.get(path)).json()["nodes"]} == {"cancelled"}


async def test_a_fan_in_waits_for_its_jobs_and_has_their_results(
    system: ClientHarness, http: httpx.AsyncClient
) -> None:
    system.provider.behave = lambda request: setattr(
        system.provider, "text", f"<{request.body['messages'][-1]['content']}>"
    )
    jobs = (await http.post("/ai/jobs/batch", json={"jobs": [chat(letter) for letter in "abc"]})).json()["jobIds"]
    body = {"jobIds": jobs, "payload": chat("{{results}}"), "options": {"priority": "high"}}
    key = {"idempotency-key": "k"}
    sent = await http.post("/ai/fan-in", json=body, headers=key)
    again = await http.post("/ai/fan-in", json=body, headers=key)
    assert (sent.status_code, sent.json()) == (202, again.json())
    assert (await http.get(sent.headers["location"])).json()["status"] == "blocked"
    for changed in ({"jobIds": jobs[:2]}, {"onError": "skip"}):
        assert is_problem(await http.post("/ai/fan-in", json=body | changed, headers=key), 422, "idempotency_conflict")
    await system.work()
    for _ in range(2_000):
        found = (await http.get(sent.headers["location"])).json()
        if found["status"] == "completed":
            break
    assert found["result"]["response"]["choices"][0]["message"]["content"] == "<<a>\n\n<b>\n\n<c>>"
    assert found["priority"] == "high"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"jobIds": []}, "jobIds"),
        ({"jobIds": ["x"]}, "jobIds.0"),
        ({"jobIds": [NOBODY.removeprefix("batch-")]}, "jobIds"),
        ({"payload": chat("{{results[4].content}}")}, "payload.messages.0.content"),
        ({"payload": chat("x", model="")}, "payload.model"),
        ({"onError": "explode"}, "onError"),
    ],
)
async def test_a_fan_in_that_can_not_work_is_refused_by_field(
    http: httpx.AsyncClient, changed: dict[str, Any], field: str
) -> None:
    jobs = (await http.post("/ai/jobs/batch", json={"jobs": [chat("a")]})).json()["jobIds"]
    refused = await http.post("/ai/fan-in", json={"jobIds": jobs, "payload": chat("{{results}}"), **changed})
    assert is_problem(refused, 400, "invalid_input")
    assert fields_of(refused) == [field]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/ai/chains", {"steps": []}, "steps"),
        ("/ai/chains", {"steps": [chat("{{previous.content}}")]}, "messages.0.content"),
        ("/ai/graphs", {"nodes": {"a": {"payload": chat("x"), "dependsOn": ["b"]}}}, "nodes.a.depends_on"),
        ("/ai/graphs", {"nodes": {"a": {"payload": chat("x"), "dependsOn": ["a"]}}}, "nodes"),
        ("/ai/jobs/batch", {"jobs": [chat("x")], "options": {"maxConcurrency": 0}}, "options.maxConcurrency"),
    ],
)
async def test_what_can_not_work_is_refused_by_field(
    system: ClientHarness, http: httpx.AsyncClient, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await http.post(path, json=body)
    assert is_problem(answer, 400, "invalid_input")
    assert field in fields_of(answer)
    assert not system.queue.service._engine.core.live


async def test_a_graph_with_too_many_edges_is_refused_with_its_limit(
    system: ClientHarness, http: httpx.AsyncClient
) -> None:
    nodes = {"last": {"payload": chat("x"), "dependsOn": [f"n{n}" for n in range(10_001)]}}
    answer = await http.post("/ai/graphs", json={"nodes": nodes})
    assert is_problem(answer, 400, "invalid_input")
    assert fields_of(answer) == ["nodes"]
    assert "may need 10000 at most: put jobs in between" in answer.text
    assert not system.queue.service._engine.core.live


async def test_what_is_not_there_is_not_found(http: httpx.AsyncClient) -> None:
    for method, path in (
        ("GET", "/ai/batches/nobody"),
        ("GET", f"/ai/batches/{NOBODY}"),
        ("GET", f"/ai/batches/{NOBODY}/results"),
        ("POST", f"/ai/batches/{NOBODY}/cancel"),
        ("GET", f"/ai/chains/{NOBODY}"),
        ("POST", f"/ai/graphs/{NOBODY}/retry-failed"),
    ):
        assert is_problem(await http.request(method, path), 404, "batch_not_found")


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=5000", "format=csv", "order=random"])
async def test_a_wrong_parameter_is_named(system: ClientHarness, http: httpx.AsyncClient, query: str) -> None:
    answer = await http.get(f"/ai/batches/{NOBODY}/results?{query}")
    assert is_problem(answer, 400, "invalid_input")
    assert fields_of(answer) == [query.partition("=")[0]]
