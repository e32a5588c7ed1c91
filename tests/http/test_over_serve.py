"""The whole way, over HTTP: HAProxy, a Serve replica, the queue and its workers."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.http.conftest import fields_of, is_problem

ENDED = {"completed", "failed", "dead_letter", "cancelled", "expired"}
OVER_ALL_LIMITS = 65 * 2**20


@pytest.fixture
def base_url(request: pytest.FixtureRequest) -> str:
    """Return where the one running system of this test run serves."""
    url: str = request.getfixturevalue("running_system").url
    return url


@pytest.fixture
def payload(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return a short chat for whatever provider the running system has."""
    name, entry = next(iter(request.getfixturevalue("running_system").settings.providers.items()))
    model = entry.models[0] if entry.models else "tiny"
    message = {"role": "user", "content": "Hi"}
    return {
        "type": "chat_completion",
        "provider": name,
        "model": model,
        "messages": [message],
        "config": {"max_tokens": 4},
    }


@pytest.fixture
def http(base_url: str) -> Any:
    """Return a client of the running system."""
    with httpx.Client(base_url=base_url, timeout=30.0, trust_env=False) as client:
        yield client


async def test_a_job_submitted_over_http_completes(base_url: str, payload: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=base_url, timeout=30.0, trust_env=False) as client, asyncio.timeout(120):
        submitted = await client.post("/ai/jobs", json={"payload": payload, "priority": "urgent"})
        assert submitted.status_code == 202
        job: dict[str, Any] = {"status": ""}
        while job["status"] not in ENDED:
            job = (await client.get(submitted.headers["location"])).json()
            await asyncio.sleep(0.05)
    assert job["status"] == "completed", job
    assert job["result"]["response"]["choices"][0]["message"]["content"] is not None
    assert job["result"]["tokens"] > 0
    assert job["slaCompliance"]["targetMs"] == 3_000


def test_a_batch_of_thousands_is_accepted_in_one_call(http: httpx.Client, payload: dict[str, Any]) -> None:
    response = http.post("/ai/jobs/batch", json={"jobs": [payload] * 2_000, "options": {"priority": "low"}})
    assert response.status_code == 202
    ids = response.json()["jobIds"]
    assert response.json()["total"] == len(set(ids)) == 2_000
    assert http.get(f"/ai/jobs/{ids[-1]}").json()["batchId"] == response.json()["batchId"]


def test_bad_input_is_a_problem_on_the_wire_too(http: httpx.Client, payload: dict[str, Any]) -> None:
    headers = {"content-type": "application/json"}
    wrong = http.post("/ai/jobs", json={"payload": payload | {"provider": "nobody"}})
    assert is_problem(wrong, 400, "invalid_input")
    assert fields_of(wrong) == ["payload.provider"]
    assert is_problem(http.post("/ai/jobs", content=b'{"payload": "\xff"}', headers=headers), 400, "invalid_input")
    assert is_problem(
        http.post("/ai/jobs", content=b"{}", headers={"content-type": "text/plain"}), 415, "unsupported_media_type"
    )
    assert is_problem(http.get("/ai/jobs/nothing"), 404, "job_not_found")
    assert is_problem(http.get("/nothing"), 404, "not_found")


def test_a_body_over_the_limit_is_refused_and_the_server_goes_on(http: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    assert is_problem(http.post("/ai/jobs", content=b" " * OVER_ALL_LIMITS, headers=headers), 413, "payload_too_large")
    stream = (b" " * 2**20 for _ in range(65))  # no Content-Length: counted
    assert is_problem(http.post("/ai/jobs", content=stream, headers=headers), 413, "payload_too_large")
    assert http.get("/ai/health").status_code == 200


def test_clients_that_hang_up_half_way_do_no_harm(http: httpx.Client, base_url: str, payload: dict[str, Any]) -> None:
    address = urlsplit(base_url)
    body = json.dumps({"payload": payload}).encode()
    head = "POST /ai/jobs HTTP/1.1\r\nHost: [::1]\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    for sent in range(0, len(request), 10):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(request[:sent])
    assert http.post("/ai/jobs", json={"payload": payload}).status_code == 202
    assert http.get("/ai/health").json()["status"] == "ok"


def test_statistics_and_the_description_are_served(http: httpx.Client) -> None:
    assert set(http.get("/ai/stats").json()) == {"adapter", "orchestrator"}
    assert "/ai/jobs" in http.get("/openapi.json").json()["paths"]


def test_the_front_listens_on_loopback_only(base_url: str) -> None:
    port = urlsplit(base_url).port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; finds the address that would be used
        outside = probe.getsockname()[0]
    if outside.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outside, port), timeout=5.0)
