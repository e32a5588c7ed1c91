"""Dead letters over HTTP, over ASGI with the real client and queue behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx
import jsonschema
import pytest

from aiqueue.errors import ProviderServerError
from aiqueue.protocol import JobView
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from tests.http.conftest import fields_of, is_problem
from tests.http.rig import Rig

UNKNOWN = "11111111-1111-4111-8111-111111111111"


def fail(_: ProviderRequest) -> None:
    raise ProviderServerError("Provider sim: 500", status=500)


async def dead_letters(rig: Rig, count: int, **options: Any) -> list[str]:
    """Let jobs run out of attempts; return their ids in the order in which they were accepted."""
    rig.provider.behave = fail
    job_ids = await rig.adapter.submit_jobs([chat()] * count, {"max_retries": 0, **options})
    await rig.adapter.wait_all(job_ids)
    rig.provider.behave = lambda _: None
    return job_ids


@pytest.fixture
async def dead(rig: Rig) -> list[str]:
    """Return the ids of three dead letters, the oldest first; a worker runs."""
    await rig.work()
    return await dead_letters(rig, 3, tags=["bulk"])


async def test_they_are_listed_newest_first_page_by_page(rig: Rig, dead: list[str]) -> None:
    seen: list[str] = []
    cursor = ""
    for expected in (2, 1):
        answer = await rig.http.get(f"/ai/dead-letters?limit=2&cursor={cursor}")
        page = answer.json()
        assert (answer.status_code, len(page["deadLetters"])) == (200, expected)
        seen += [job["jobId"] for job in page["deadLetters"]]
        cursor = page["nextCursor"]
    assert cursor is None
    assert seen == dead[::-1]
    first = page["deadLetters"][0]
    assert (first["status"], first["error"]["kind"], first["attempt"]) == ("dead_letter", "provider_server_error", 1)
    assert first["tags"] == ["bulk"]


@pytest.mark.parametrize("stored", [b"", b'{"type": \xff', b'{"type": NaN}', b"[" * 100_000])
async def test_one_whose_payload_is_damaged_is_shown_with_null(
    rig: Rig, dead: list[str], stored: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = rig.transport.get_jobs

    async def damaged(ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        views = await read(ids, with_payload=with_payload)
        for view in filter(None, views):
            view.payload = stored
        return views

    monkeypatch.setattr(rig.transport, "get_jobs", damaged)
    answer = await rig.http.get(f"/ai/dead-letters/{dead[0]}")
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["job"]["jobId"], shown["payload"]) == (dead[0], None)


async def test_filters_go_together(rig: Rig, dead: list[str]) -> None:
    (other,) = await dead_letters(rig, 1, tags=["other"])
    info = await rig.adapter.get_job_status(dead[0])
    assert info is not None
    assert info.finished_at is not None
    later = (info.finished_at + timedelta(hours=1)).isoformat()

    async def found(**filters: str) -> list[str]:
        answer = await rig.http.get("/ai/dead-letters", params=filters)
        return [job["jobId"] for job in answer.json()["deadLetters"]]

    assert await found(tag="bulk") == dead[::-1]
    assert await found(tag="other", reason="provider_server_error", model="model-a") == [other]
    assert await found(tag="other", reason="timeout") == []
    assert await found(model="model-b") == []
    assert len(await found(since=info.finished_at.isoformat())) == 4
    assert await found(since=later) == []
    assert len(await found(since="2020-01-31T09:00:00Z")) == 4


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("reason=tired", "reason"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("model=" + "m" * 300, "model"),
        ("tags=bulk", "tags"),
    ],
)
async def test_a_filter_that_is_none_is_refused_by_name(rig: Rig, query: str, field: str) -> None:
    answer = await rig.http.get(f"/ai/dead-letters?{query}")
    assert is_problem(answer, 400, "invalid_input")
    assert fields_of(answer) == [field]


async def test_one_is_shown_with_its_payload_and_all_its_attempts(rig: Rig) -> None:
    await rig.work()
    (job_id,) = await dead_letters(rig, 1, max_retries=2)
    shown = (await rig.http.get(f"/ai/dead-letters/{job_id.upper()}")).json()
    assert shown["payload"] == chat()
    assert [(each["attempt"], each["outcome"]) for each in shown["job"]["attempts"]] == [(1, "failed"), (2, "failed")]
    assert (shown["job"]["attempt"], shown["job"]["error"]["status"]) == (3, 500)


async def test_a_redrive_is_one_new_job_however_often_it_is_sent(rig: Rig, dead: list[str]) -> None:
    first = await rig.http.post(f"/ai/dead-letters/{dead[0]}/redrive")
    again = await rig.http.post(f"/ai/dead-letters/{dead[0]}/redrive", json={})
    assert (first.status_code, first.json()) == (202, again.json())
    ((pair),) = first.json()["redriven"]
    assert pair["deadLetterId"] == dead[0]
    info = await rig.adapter.wait(pair["jobId"])
    assert (info.status, info.redriven_from, info.tags) == ("completed", dead[0], ("bulk",))
    shown = (await rig.http.get(f"/ai/jobs/{pair['jobId']}")).json()
    assert shown["redrivenFrom"] == dead[0]


async def test_another_patch_for_the_same_one_is_a_conflict(rig: Rig, dead: list[str]) -> None:
    await rig.http.post(f"/ai/dead-letters/{dead[0]}/redrive")
    other = await rig.http.post(f"/ai/dead-letters/{dead[0]}/redrive", json={"maxRetries": 9})
    assert is_problem(other, 422, "idempotency_conflict")
    assert f"dead letter {dead[0]} was redriven with other changes" in other.json()["detail"]


async def test_a_patch_changes_the_new_job(rig: Rig, dead: list[str]) -> None:
    rig.provider.behave = fail
    answer = await rig.http.post(f"/ai/dead-letters/{dead[0]}/redrive", json={"maxRetries": 1, "model": "model-a"})
    job_id = answer.json()["redriven"][0]["jobId"]
    info = await rig.adapter.wait(job_id)
    assert (info.status, info.attempt) == ("dead_letter", 2)


async def test_many_are_redriven_no_faster_than_asked(rig: Rig, dead: list[str]) -> None:
    body = {"jobIds": [*dead, dead[0]], "perSecond": 0.5}
    answer = await rig.http.post("/ai/dead-letters/redrive", json=body)
    assert answer.status_code == 202
    pairs = answer.json()["redriven"]
    assert [pair["deadLetterId"] for pair in pairs] == dead
    started = [await rig.adapter.get_job_status(pair["jobId"]) for pair in pairs]
    now = rig.queue.clock.now()
    waits = [info.run_at.timestamp() - now for info in started if info and info.run_at]
    assert waits == [2.0, 4.0]
    again = await rig.http.post("/ai/dead-letters/redrive", json={"jobIds": dead[::-1]})
    assert again.json()["redriven"] == pairs[::-1], "a redrive that was asked for at another rate is the same"


async def test_nothing_is_redriven_if_one_of_them_is_no_dead_letter(rig: Rig, dead: list[str]) -> None:
    healthy = await rig.adapter.submit_job(chat())
    await rig.adapter.wait(healthy)
    before = (await rig.adapter.get_stats()).total_jobs
    answer = await rig.http.post("/ai/dead-letters/redrive", json={"jobIds": [dead[0], healthy]})
    assert is_problem(answer, 404, "dead_letter_not_found")
    assert healthy in answer.json()["detail"]
    assert (await rig.adapter.get_stats()).total_jobs == before


async def test_they_are_deleted_and_no_other_job_is(rig: Rig, dead: list[str]) -> None:
    healthy = await rig.adapter.submit_job(chat())
    await rig.adapter.wait(healthy)
    one = await rig.http.delete(f"/ai/dead-letters/{dead[0]}")
    assert (one.status_code, one.json()) == (200, {"deleted": [dead[0]]})
    many = await rig.http.post("/ai/dead-letters/delete", json={"jobIds": [*dead, healthy, UNKNOWN]})
    assert sorted(many.json()["deleted"]) == sorted(dead[1:])
    assert (await rig.http.get("/ai/dead-letters")).json() == {"deadLetters": [], "nextCursor": None}
    assert (await rig.http.get(f"/ai/jobs/{healthy}")).status_code == 200


async def test_ids_that_are_no_dead_letters_are_problems(rig: Rig) -> None:
    queued = await rig.adapter.submit_job(chat())
    for job_id in (UNKNOWN, queued, "x"):
        for call in (
            rig.http.get(f"/ai/dead-letters/{job_id}"),
            rig.http.delete(f"/ai/dead-letters/{job_id}"),
            rig.http.post(f"/ai/dead-letters/{job_id}/redrive"),
        ):
            assert is_problem(await call, 404, "dead_letter_not_found")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("redrive", {"jobIds": []}, "jobIds"),
        ("redrive", {"jobIds": ["x"]}, "jobIds.0"),
        ("redrive", {"jobIds": [UNKNOWN], "perSecond": 0}, "perSecond"),
        ("redrive", {"jobIds": [UNKNOWN], "priority": "urgent"}, "priority"),
        ("redrive", {"jobIds": [UNKNOWN] * 1_001}, "jobIds"),
        ("delete", {}, "jobIds"),
        (f"{UNKNOWN}/redrive", {"maxRetries": 11}, "maxRetries"),
    ],
)
async def test_bad_bodies_name_the_field(rig: Rig, path: str, body: dict[str, Any], field: str) -> None:
    answer = await rig.http.post(f"/ai/dead-letters/{path}", json=body)
    assert is_problem(answer, 400, "invalid_input")
    assert fields_of(answer) == [field]


async def test_a_model_that_the_provider_does_not_have_is_refused(rig: Rig, dead: list[str]) -> None:
    answer = await rig.http.post(f"/ai/dead-letters/{dead[0]}/redrive", json={"model": "model-z"})
    assert is_problem(answer, 400, "invalid_input")
    assert fields_of(answer) == ["model"]


async def test_answers_are_as_described(rig: Rig, dead: list[str]) -> None:
    described = (await rig.http.get("/openapi.json")).json()

    def check(answer: httpx.Response, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
        jsonschema.validate(answer.json(), schema, cls=jsonschema.Draft202012Validator)

    check(await rig.http.get("/ai/dead-letters?limit=1"), "DeadLetterPage")
    check(await rig.http.get(f"/ai/dead-letters/{dead[0]}"), "DeadLetter")
    check(await rig.http.post("/ai/dead-letters/redrive", json={"jobIds": dead}), "Redriven")
    check(await rig.http.delete(f"/ai/dead-letters/{dead[0]}"), "Deleted")
