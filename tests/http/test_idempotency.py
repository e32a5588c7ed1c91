"""``Idempotency-Key`` over HTTP, with a real queue behind: one job or batch per caller, key and body."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from serve.callers import caller_scope
from tests.http.conftest import chat, is_problem
from tests.http.rig import Rig

KEY = {"idempotency-key": "key-1"}
CHAT = chat(provider="sim", model="model-a")
OTHER = chat(provider="sim", model="model-a", messages=[{"role": "user", "content": "Ho"}])


async def post(rig: Rig, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await rig.http.post(path, json=body, headers={**KEY, **headers})


async def total(rig: Rig) -> int:
    stats: dict[str, Any] = (await rig.http.get("/ai/stats")).json()
    return int(stats["adapter"]["totalJobs"])


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_same_key_and_body_is_the_same_job_and_answer_also_after_its_end(rig: Rig, restarted: bool) -> None:
    first = await post(rig, "/ai/jobs", {"payload": CHAT})
    again = await post(rig, "/ai/jobs", {"payload": CHAT})
    await rig.work()
    await rig.adapter.wait(first.json()["jobId"])
    if restarted:
        await rig.crash()
    ended = await post(rig, "/ai/jobs", {"payload": CHAT})
    assert [answer.status_code for answer in (first, again, ended)] == [202, 202, 202]
    assert first.json() == again.json() == ended.json()
    assert first.headers["location"] == again.headers["location"] == ended.headers["location"]
    assert await total(rig) == 1


async def test_the_same_key_with_another_body_is_refused(rig: Rig) -> None:
    await post(rig, "/ai/jobs", {"payload": CHAT})
    for body in ({"payload": OTHER}, {"payload": CHAT, "priority": "urgent"}):
        assert is_problem(await post(rig, "/ai/jobs", body), 422, "idempotency_conflict")
    assert await total(rig) == 1


@pytest.mark.parametrize("path", ["/ai/jobs", "/ai/jobs/batch"])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_the_same_key_of_two_callers_is_two_jobs_and_no_secret_is_kept(rig: Rig, path: str, header: str) -> None:
    body = {"payload": CHAT} if path == "/ai/jobs" else {"jobs": [CHAT]}
    answers = [await post(rig, path, body, **{header: f"Bearer secret-{caller}"}) for caller in ("a", "b", "a")]
    assert answers[0].json() == answers[2].json() != answers[1].json()
    assert await total(rig) == 2
    kept = repr(rig.queue.memory._disk)
    assert "key-1" in kept
    assert "secret" not in kept


def test_a_caller_is_who_logs_in_and_not_with_which_password() -> None:
    logins = [f"Basic {b64encode(text.encode()).decode()}" for text in ("ann:1", "ann:2", "bob:1")]
    ann, changed, bob = (caller_scope(Headers({"authorization": login})) for login in logins)
    assert ann == changed != bob
    assert caller_scope(Headers()) == "default"
    assert caller_scope(Headers({"authorization": "Basic no base64"})) not in (ann, bob, "default")
    assert ":" not in ann


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_a_batch_sent_again_with_its_key_is_itself_with_the_same_answer(rig: Rig) -> None:
    body = {"jobs": [CHAT] * 30, "options": {"name": "night", "maxConcurrency": 2}}
    first = await post(rig, "/ai/jobs/batch", body)
    again = await post(rig, "/ai/jobs/batch", body)
    await rig.crash()
    after = await post(rig, "/ai/jobs/batch", body)
    assert [answer.status_code for answer in (first, again, after)] == [202, 202, 202]
    assert first.json() == again.json() == after.json()
    assert await total(rig) == 30
    batch = (await rig.http.get(f"/ai/batches/{first.json()['batchId']}")).json()
    assert (batch["total"], batch["name"]) == (30, "night")
    infos = await rig.adapter.get_jobs(first.json()["jobIds"])
    assert {info and info.batch_id for info in infos} == {first.json()["batchId"]}


async def test_a_batch_whose_answer_got_lost_runs_once(rig: Rig) -> None:
    rig.transport.lose_answers("submit")
    answer = await post(rig, "/ai/jobs/batch", {"jobs": [CHAT] * 5})
    assert answer.status_code == 202
    assert await total(rig) == 5
    assert (await post(rig, "/ai/jobs/batch", {"jobs": [CHAT] * 5})).json() == answer.json()
    assert await total(rig) == 5


@pytest.mark.parametrize(
    "other",
    [
        {"jobs": [CHAT]},
        {"jobs": [CHAT, OTHER]},
        {"jobs": [CHAT, CHAT], "options": {"maxConcurrency": 1}},
        {"jobs": [CHAT, CHAT], "options": {"priority": "low"}},
    ],
    ids=["fewer", "last job", "batch options", "job options"],
)
async def test_another_batch_under_a_used_key_is_refused(rig: Rig, other: dict[str, Any]) -> None:
    await post(rig, "/ai/jobs/batch", {"jobs": [CHAT, CHAT]})
    assert is_problem(await post(rig, "/ai/jobs/batch", other), 422, "idempotency_conflict")
    assert await total(rig) == 2


async def test_a_job_and_a_batch_of_it_are_not_the_same_body(rig: Rig) -> None:
    await post(rig, "/ai/jobs", {"payload": CHAT})
    assert is_problem(await post(rig, "/ai/jobs/batch", {"jobs": [CHAT]}), 422, "idempotency_conflict")


# --- chains, graphs and schedules -------------------------------------------------------------------------------------

STEP = chat(provider="sim", model="model-a", messages=[{"role": "user", "content": "Go on: {{previous.content}}"}])
CHAIN = {"steps": [CHAT, STEP], "options": {"name": "pair"}}
GRAPH = {"nodes": {"a": {"payload": CHAT}, "b": {"payload": CHAT}, "c": {"payload": CHAT, "dependsOn": ["a"]}}}
DAILY = {"name": "daily", "cronExpression": "0 9 * * *", "payload": CHAT}


@pytest.mark.parametrize(("path", "body", "jobs"), [("/ai/chains", CHAIN, 2), ("/ai/graphs", GRAPH, 3)])
async def test_a_chain_or_a_graph_sent_again_with_its_key_is_itself(
    rig: Rig, path: str, body: dict[str, Any], jobs: int
) -> None:
    rig.transport.lose_answers("submit")
    first = await post(rig, path, body)
    again = await post(rig, path, body)
    await rig.crash()
    after = await post(rig, path, body)
    assert [answer.status_code for answer in (first, again, after)] == [202, 202, 202]
    assert first.json() == again.json() == after.json()
    assert await total(rig) == jobs
    group_id = first.json()["chainId" if path == "/ai/chains" else "graphId"]
    nodes = (await rig.http.get(f"{path}/{group_id}")).json()["nodes"]
    ids = first.json()["jobIds"]
    assert [node["jobId"] for node in nodes] == list(ids.values() if isinstance(ids, dict) else ids)
    other = await post(rig, path, body, authorization="Bearer other")
    assert other.json() != first.json()


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/ai/chains", CHAIN, {"steps": [CHAT, CHAT], "options": {"name": "pair"}}),
        ("/ai/chains", CHAIN, {"steps": [CHAT, STEP], "options": {"name": "pair", "stopOnError": False}}),
        ("/ai/graphs", GRAPH, {"nodes": {**GRAPH["nodes"], "c": {"payload": CHAT, "dependsOn": ["b"]}}}),
        ("/ai/graphs", GRAPH, CHAIN),
        ("/ai/schedules", DAILY, {**DAILY, "name": "other"}),
        ("/ai/schedules", DAILY, {**DAILY, "cronExpression": "0 10 * * *"}),
    ],
    ids=["step", "rule", "needs", "graph and chain", "name", "line"],
)
async def test_another_one_under_a_used_key_is_refused(
    rig: Rig, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (await post(rig, path, body)).is_success
    before = await total(rig)
    where = "/ai/chains" if other is CHAIN else path
    assert is_problem(await post(rig, where, other), 422, "idempotency_conflict")
    assert await total(rig) == before
    assert len((await rig.http.get("/ai/schedules")).json()["schedules"]) == (path == "/ai/schedules")


async def test_a_schedule_sent_again_with_its_key_is_itself_and_does_not_come_back_once_removed(rig: Rig) -> None:
    rig.transport.lose_answers("schedules")
    assert (await post(rig, "/ai/schedules", DAILY)).status_code == 503, "over Ray the client asks again by itself"
    first = await post(rig, "/ai/schedules", DAILY)
    await rig.crash()
    again = await post(rig, "/ai/schedules", DAILY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["scheduleId"] == again.json()["scheduleId"]
    assert (await rig.http.delete("/ai/schedules/daily")).is_success
    assert is_problem(await post(rig, "/ai/schedules", DAILY), 404, "schedule_not_found")
    assert (await rig.http.get("/ai/schedules")).json()["schedules"] == []
    fresh = await rig.http.post("/ai/schedules", json=DAILY)
    assert fresh.json()["scheduleId"] != first.json()["scheduleId"]


async def test_a_run_by_hand_sent_again_with_its_key_is_the_same_job_also_after_its_end(rig: Rig) -> None:
    for name in ("daily", "other"):
        assert (await rig.http.post("/ai/schedules", json={**DAILY, "name": name})).is_success
    first = await post(rig, "/ai/schedules/daily/run", {})
    await rig.work()
    await rig.adapter.wait(first.json()["jobId"])
    await rig.crash()
    again = await post(rig, "/ai/schedules/daily/run", {})
    assert (again.status_code, again.json()) == (202, first.json())
    assert await total(rig) == 1
    assert is_problem(await post(rig, "/ai/schedules/other/run", {}), 409, "duplicate_job")
    mine = await post(rig, "/ai/schedules/daily/run", {}, **{"x-api-key": "another caller"})
    assert mine.json() != first.json()


async def test_batches_without_a_key_are_as_many_as_are_sent(rig: Rig) -> None:
    ids = {(await rig.http.post("/ai/jobs/batch", json={"jobs": [CHAT]})).json()["batchId"] for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize("key", ["", "k" * 256])
@pytest.mark.parametrize(
    ("path", "body"),
    [("/ai/jobs/batch", {"jobs": [CHAT]}), ("/ai/chains", CHAIN), ("/ai/graphs", GRAPH), ("/ai/schedules", DAILY)],
)
async def test_a_key_of_the_wrong_length_is_refused(rig: Rig, path: str, body: dict[str, Any], key: str) -> None:
    answer = await post(rig, path, body, **{"idempotency-key": key})
    assert is_problem(answer, 400, "invalid_input")
    assert await total(rig) == 0
