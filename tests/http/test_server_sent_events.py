"""Server-sent events, over ASGI with the real client and queue behind."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime

import pytest

from aiqueue.errors import AuthenticationFailed, JobError, ProviderServerError, RateLimited
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from serve import streams
from serve.routes import events as events_route
from serve.streams import StreamSlots
from tests.http.conftest import fields_of, is_problem
from tests.http.rig import Rig
from tests.tools.turns import until

UNKNOWN = "11111111-1111-4111-8111-111111111111"


async def test_the_stream_of_all_jobs_carries_the_specifications_fields(rig: Rig) -> None:
    async with rig.sse("/ai/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        job_id = await rig.adapter.submit_job(chat())
        await rig.work()
        seen = [await stream.event() for _ in range(3)]
    assert [event and event.name for event in seen] == ["job:submitted", "job:processing", "job:completed"]
    end = seen[-1]
    assert end is not None
    assert (end.data["jobId"], end.data["status"], end.data["job"]["model"]) == (job_id, "completed", "model-a")
    assert end.data["result"]["response"]["choices"][0]["message"]["content"] == "Hi there"
    assert end.data["slaCompliance"]["met"] is True
    assert end.id == end.data["number"]


async def test_a_stream_that_was_cut_resumes_without_loss_or_repetition(rig: Rig) -> None:
    await rig.work()
    ids = [await rig.adapter.submit_job(chat()) for _ in range(40)]
    await rig.adapter.wait_all(ids)
    seen: list[int] = []
    while len(seen) < 120:
        last = {"last_event_id": str(seen[-1])} if seen else {}
        async with rig.sse("/ai/events?after=0", **last) as stream:
            for _ in range(min(7, 120 - len(seen))):
                event = await stream.event()
                assert event is not None
                seen.append(event.id)
    assert seen == list(range(1, 121))


REFUSED, BROKEN = (
    RateLimited("Provider sim: 429", status=429, retry_after_s=0.0),
    ProviderServerError("500", status=500),
)


@pytest.mark.parametrize(
    ("answers", "end", "counts"),
    [
        ([REFUSED, REFUSED, BROKEN], "completed", [1, 1]),
        ([AuthenticationFailed("Provider sim: 401", status=401)], "failed", [0]),
        ([BROKEN] * 4, "dead-letter", [1, 2, 3, 3]),
    ],
)
async def test_the_retry_count_is_the_same_wherever_it_is_shown(
    rig: Rig, answers: list[JobError], end: str, counts: list[int]
) -> None:
    def answer(request: ProviderRequest) -> None:
        if len(rig.provider.calls) <= len(answers):
            raise answers[len(rig.provider.calls) - 1]

    async def let_time_pass() -> None:  # for gates and backoffs, by the queue's clock
        while True:
            rig.queue.clock.advance(0.5)
            await asyncio.sleep(0.01)

    rig.provider.behave = answer
    passing = asyncio.create_task(let_time_pass())
    shown: list[int] = []
    async with rig.sse(f"/ai/events?names=job:retried,job:{end}") as stream:
        job_id = await rig.adapter.submit_job(chat())
        await rig.work()
        while len(shown) < len(counts):
            event = await stream.event()
            assert event is not None
            shown.append(event.data.get("retryCount", 0))
            assert event.data["job"].get("retryCount", 0) == shown[-1]
    passing.cancel()
    async with rig.sse(f"/ai/jobs/{job_id}/events") as late:
        event = await late.event()
    assert event is not None
    assert (event.name, shown) == (f"job:{end}", counts)
    assert event.data.get("retryCount", 0) == counts[-1]
    assert (await rig.http.get(f"/ai/jobs/{job_id}")).json().get("retryCount", 0) == counts[-1]


async def test_only_the_names_asked_for_are_sent(rig: Rig) -> None:
    await rig.work()
    await rig.adapter.wait(await rig.adapter.submit_job(chat()))
    async with rig.sse("/ai/events?after=0&names=job:completed,job:failed") as stream:
        event = await stream.event()
    assert event is not None
    assert event.name == "job:completed"


async def test_events_about_no_job_carry_their_own_fields(rig: Rig) -> None:
    async with rig.sse("/ai/events?names=worker-pool:scaled-up,gate:closed") as stream:
        await rig.adapter.submit_job(chat())
        await rig.transport.announce("worker-pool:scaled-up", {"previous_size": 1, "new_size": 3})
        scaled = await stream.event()
        rig.provider.behave = _refuse
        await rig.work()
        closed = await stream.event()
    assert scaled is not None
    assert (scaled.name, scaled.id) == ("worker-pool:scaled-up", 2)
    assert scaled.data == {"previousSize": 1, "newSize": 3, "number": 2, "at": scaled.data["at"]}
    assert closed is not None
    until_when = closed.data.pop("until")
    assert closed.data == {
        "number": closed.id,
        "gate": "sim/model-a",
        "provider": "sim",
        "model": "model-a",
        "reason": "rate limited by the provider",
    }
    assert datetime.fromisoformat(until_when).timestamp() == rig.queue.clock.now() + 40.0


async def test_a_cursor_from_before_the_window_gives_a_gap(rig: Rig) -> None:
    await rig.adapter.submit_job(chat())
    await rig.adapter.submit_job(chat())
    await rig.crash()  # the log begins anew behind the two
    async with rig.sse("/ai/events?after=1") as stream:
        gap = await stream.event()
        await rig.adapter.submit_job(chat())
        event = await stream.event()
    assert gap is not None
    assert event is not None
    assert (gap.name, gap.id, gap.data) == ("gap", 2, {"after": 1, "number": 2})
    assert (event.name, event.id) == ("job:submitted", 3)


async def test_a_jobs_stream_ends_with_the_job(rig: Rig) -> None:
    job_id, _ = await rig.adapter.submit_jobs([chat(), chat()])
    async with rig.sse(f"/ai/jobs/{job_id}/events?after=0") as stream:
        await rig.work()
        seen = await stream.rest()
    assert [event.name for event in seen] == ["job:submitted", "job:processing", "job:completed"]
    assert {event.data["jobId"] for event in seen} == {job_id}


async def test_a_job_that_has_ended_shows_its_end_and_no_more_on_coming_back(rig: Rig) -> None:
    await rig.work()
    job_id = await rig.adapter.submit_job(chat())
    await rig.adapter.wait(job_id)
    async with rig.sse(f"/ai/jobs/{job_id}/events") as stream:
        (end,) = await stream.rest()
    assert (end.name, end.data["status"]) == ("job:completed", "completed")
    assert end.data["result"]["response"]
    again = await rig.http.get(f"/ai/jobs/{job_id}/events", headers={"last-event-id": str(end.id)})
    assert (again.status_code, again.content) == (204, b"")


async def test_a_jobs_end_inside_a_gap_is_not_missed(rig: Rig) -> None:
    job_id = await rig.adapter.submit_job(chat())
    await rig.adapter.cancel_job(job_id)
    await rig.crash()
    async with rig.sse(f"/ai/jobs/{job_id}/events?after=1") as stream:
        seen = await stream.rest()
    assert [event.name for event in seen] == ["gap", "job:cancelled"]


async def test_unknown_jobs_and_bad_cursors_are_problems(rig: Rig) -> None:
    assert is_problem(await rig.http.get(f"/ai/jobs/{UNKNOWN}/events"), 404, "job_not_found")
    assert is_problem(await rig.http.get("/ai/jobs/x/events"), 404, "job_not_found")
    for address, headers, field in [
        ("/ai/events?after=-1", {}, "after"),
        ("/ai/events", {"last-event-id": "9" * 30}, "Last-Event-ID"),
        ("/ai/events?names=job:done", {}, "names"),
    ]:
        answer = await rig.http.get(address, headers=headers)
        assert is_problem(answer, 400, "invalid_input")
        assert fields_of(answer) == [field]


async def test_heartbeats_come_and_the_deadline_does_not_cut_a_stream(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_route, "HEARTBEAT_S", 0.02)
    async with rig.serving(deadline_s=0.05), rig.sse("/ai/events") as stream:
        pieces = [await stream.piece() for _ in range(8)]
        await rig.adapter.submit_job(chat())
        assert await stream.event() is not None
    assert pieces[0] == b"retry: 1000\n\n"
    assert set(pieces[1:]) == {b":\n\n"}


async def test_a_reader_that_takes_nothing_is_cut_off_and_holds_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STUCK_S", 0.02)
    async with rig.sse("/ai/events") as stream:
        stream.taking.clear()
        await rig.adapter.submit_jobs([chat()] * 500)
        await until(stream.task.done)
        assert rig.app.state.streams.open == 0
    assert not rig.followers()


async def test_a_reader_that_hangs_up_is_let_go_at_once(rig: Rig) -> None:
    async with rig.sse("/ai/events"):
        await until(lambda: rig.app.state.streams.open == 1 and rig.followers())
    assert rig.app.state.streams.open == 0
    assert not rig.followers()


async def test_an_id_ahead_of_the_log_is_told_of_the_gap_and_the_streams_go_on(rig: Rig) -> None:
    job_id = await rig.adapter.submit_job(chat())
    async with (
        rig.sse("/ai/events", last_event_id="500") as everything,
        rig.sse(f"/ai/jobs/{job_id}/events", last_event_id="500") as one,
        asyncio.timeout(120.0),
    ):
        for stream in (everything, one):
            gap = await stream.event()
            assert gap is not None
            assert (gap.name, gap.data) == ("gap", {"after": 500, "number": 1})
        await rig.adapter.cancel_job(job_id)
        end = await everything.event()
        assert end is not None
        assert end.name == "job:cancelled"
        assert [event.name for event in await one.rest()] == ["job:cancelled"]


async def test_all_streams_of_a_replica_share_one_long_poll(rig: Rig) -> None:
    job_ids = await rig.adapter.submit_jobs([chat()] * 3)
    async with AsyncExitStack() as opened:
        everything = [await opened.enter_async_context(rig.sse("/ai/events")) for _ in range(10)]
        single = [await opened.enter_async_context(rig.sse(f"/ai/jobs/{job_id}/events")) for job_id in job_ids * 3]
        socket = await opened.enter_async_context(rig.socket())
        socket.say("subscribe:job", job_ids[0])
        assert (await socket.hear())["data"]["status"] == "queued"
        await until(lambda: rig.parked())
        assert len(rig.parked()) == 1
        asked = rig.transport.calls["events"]
        for job_id in job_ids:
            await rig.adapter.cancel_job(job_id)
        for stream in everything:
            events = [await stream.event() for _ in job_ids]
            assert [event and event.data["jobId"] for event in events] == job_ids
        for stream, job_id in zip(single, job_ids * 3, strict=True):
            (end,) = await stream.rest()
            assert (end.name, end.data["jobId"]) == ("job:cancelled", job_id)
        assert (await socket.hear())["data"]["status"] == "cancelled"
        assert rig.transport.calls["events"] - asked < 6


async def test_streams_beyond_the_limit_are_refused_and_plain_requests_are_not(rig: Rig) -> None:
    rig.app.state.streams = StreamSlots(1)
    async with rig.sse("/ai/events") as stream:
        await stream.piece()
        refused = await rig.http.get("/ai/events")
        assert is_problem(refused, 503, "too_many_streams")
        assert refused.headers["retry-after"] == "5"
        async with rig.socket() as socket:
            assert (socket.opened["type"], socket.opened["status"]) == ("websocket.http.response.start", 503)
        assert (await rig.http.get("/ai/live")).status_code == 200


def _refuse(_: ProviderRequest) -> None:
    raise RateLimited("sim", retry_after_s=40.0)
