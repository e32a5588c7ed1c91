"""Events over HTTP: server-sent events and the WebSocket, over ASGI with the real client and queue behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from aiqueue.client import event_stream
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.event_stream import Gap
from aiqueue.config import HttpConfig
from aiqueue.testing.jobs import chat
from serve import streams
from serve.app import create_app
from serve.routes import events as events_route
from serve.routes import socket as socket_route
from serve.streams import StreamSlots
from tests.http.conftest import fields_of, is_problem
from tests.tools.asgi_streams import SocketClient, SseClient
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import until

UNKNOWN = "11111111-1111-4111-8111-111111111111"


class Rig(ClientHarness):
    """A queue, a client, and the application in front of another client."""

    app: Any
    adapter: AsyncAIQueueAdapter
    http: httpx.AsyncClient

    def sse(self, address: str, **headers: str) -> SseClient:
        """Return a reader of a stream; not open yet."""
        return SseClient(self.app, address, {name.replace("_", "-"): value for name, value in headers.items()})

    def socket(self, **headers: str) -> SocketClient:
        """Return a WebSocket; not open yet."""
        return SocketClient(self.app, "/ai/ws", headers)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """Return a system without a worker."""
    monkeypatch.setattr(event_stream, "_RETRY_S", 0.0)
    async with Rig() as made, _serve(made):
        made.adapter = await made.client()
        yield made


@asynccontextmanager
async def _serve(rig: Rig, **options: Any) -> AsyncIterator[None]:
    rig.app = create_app(lambda: AsyncAIQueueAdapter(rig.transport), HttpConfig(), **options)
    async with (
        rig.app.router.lifespan_context(rig.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(rig.app), base_url="http://test") as rig.http,
    ):
        yield


# --- the client's own stream ---


async def test_a_client_iterates_over_chosen_events_through_a_restart_of_the_queue(rig: Rig) -> None:
    async with rig.adapter.events(names=["job:submitted", "job:completed"]) as stream:
        job_id = await rig.adapter.submit_job(chat())
        first = await anext(stream)
        await rig.crash()
        rig.transport.lose_answers("events")
        await rig.work()
        second = await anext(stream)
    assert not isinstance(first, Gap)
    assert not isinstance(second, Gap)
    assert [(first.name, first.job_id), (second.name, second.job_id)] == [
        ("job:submitted", job_id),
        ("job:completed", job_id),
    ]
    assert second.result is not None


async def test_an_unknown_name_is_refused(rig: Rig) -> None:
    with pytest.raises(ValueError, match="job:done"):
        rig.adapter.events(names=["job:done"])


# --- server-sent events ---


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


async def test_only_the_names_asked_for_are_sent(rig: Rig) -> None:
    await rig.work()
    await rig.adapter.wait(await rig.adapter.submit_job(chat()))
    async with rig.sse("/ai/events?after=0&names=job:completed,job:failed") as stream:
        event = await stream.event()
    assert event is not None
    assert event.name == "job:completed"


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
    async with _serve(rig, deadline_s=0.05), rig.sse("/ai/events") as stream:
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
    await until(lambda: not _parked(rig))


async def test_a_reader_that_hangs_up_is_let_go_at_once(rig: Rig) -> None:
    async with rig.sse("/ai/events"):
        await until(lambda: rig.app.state.streams.open == 1 and _parked(rig))
    assert rig.app.state.streams.open == 0
    await rig.adapter.submit_job(chat())  # ends the call that the queue still had of it
    await until(lambda: not _parked(rig))


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


# --- the WebSocket ---


async def test_a_subscription_shows_the_job_now_and_each_change(rig: Rig) -> None:
    job_id = await rig.adapter.submit_job(chat())
    async with rig.socket() as socket:
        socket.say("subscribe:job", job_id.upper())
        now = await socket.hear()
        await rig.work()
        running, end = await socket.hear(), await socket.hear()
        socket.say("subscribe:job", job_id)  # it has ended: shown once more
        again = await socket.hear()
    assert now == {"event": "job:update", "data": {"jobId": job_id, "status": "queued"}}
    assert running["data"]["status"] == "processing"
    assert end["data"]["status"] == "completed"
    assert end["data"]["result"]["response"]["choices"][0]["message"]["content"] == "Hi there"
    assert again == end


async def test_an_unsubscribed_or_unknown_job_sends_no_updates(rig: Rig) -> None:
    first, second = await rig.adapter.submit_jobs([chat(), chat()])
    async with rig.socket() as socket:
        socket.say("subscribe:job", first)
        socket.say("subscribe:job", second)
        socket.say("subscribe:job", "nothing")
        heard = [await socket.hear() for _ in range(3)]
        socket.say("unsubscribe:job", first)
        await until(lambda: socket._incoming.empty())
        await rig.adapter.cancel_job(first)
        await rig.adapter.cancel_job(second)
        update = await socket.hear()
    assert heard[2]["event"] == "job:error"
    assert heard[2]["data"]["code"] == "job_not_found"
    assert update["data"]["jobId"] == second
    assert update["data"]["status"] == "cancelled"


async def test_a_socket_goes_on_through_a_restart_and_misses_no_end(rig: Rig) -> None:
    job_id = await rig.adapter.submit_job(chat())
    async with rig.socket() as socket:
        socket.say("subscribe:job", job_id)
        await socket.hear()
        rig.transport.lose_answers("events", 2)
        await rig.crash()
        await rig.adapter.cancel_job(job_id)
        update = await socket.hear()
    assert update["data"]["status"] == "cancelled"


async def test_a_slow_reader_gets_a_window_and_all_the_rest_once_it_says_how_far_it_is(
    rig: Rig,
) -> None:
    ids = await rig.adapter.submit_jobs([chat()] * 200)
    async with rig.socket() as socket:
        for job_id in ids:
            socket.say("subscribe:job", job_id)
        await until(lambda: socket.sent.qsize() >= socket_route.WINDOW)
        await rig.http.get("/ai/stats")
        assert socket.sent.qsize() <= socket_route.WINDOW + 2  # and pings
        updates = 0
        while updates < 200:
            heard = await socket.hear()
            updates += heard["event"] == "job:update"
            if heard["event"] == "ping":
                socket.say("pong", heard["data"])


async def test_a_reader_that_does_not_read_is_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_route, "STUCK_S", 0.02)
    ids = await rig.adapter.submit_jobs([chat()] * 100)
    async with rig.socket() as socket:
        for job_id in ids:
            socket.say("subscribe:job", job_id)
        heard = {}
        while "closed" not in heard:
            heard = await socket.hear()
        assert heard == {"closed": socket_route.TRY_LATER}
    assert rig.app.state.streams.open == 0
    await until(lambda: not _parked(rig))


async def test_an_idle_socket_is_pinged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_route, "PING_S", 0.02)
    async with rig.socket() as socket:
        assert await socket.hear() == {"event": "ping", "data": 0}
        assert await socket.hear() == {"event": "ping", "data": 0}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 1008),
        ('{"event": "drop:table"}', 1008),
        ('{"event": "subscribe:job", "data": 3}', 1008),
        ('{"event": "pong", "data": 99}', 1008),
        ("x" * 70_000, 1009),
    ],
)
async def test_a_message_that_is_none_closes_the_socket(rig: Rig, text: str, code: int) -> None:
    async with rig.socket() as socket:
        socket.put(type="websocket.receive", text=text)
        assert await socket.hear() == {"closed": code}


async def test_one_socket_follows_so_many_jobs_and_no_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_route, "MAX_JOBS", 2)
    async with rig.socket() as socket:
        for job_id in await rig.adapter.submit_jobs([chat()] * 3):
            socket.say("subscribe:job", job_id)
        while "closed" not in (heard := await socket.hear()):
            pass
        assert heard == {"closed": 1008}


async def test_a_page_of_another_site_gets_no_socket(rig: Rig) -> None:
    async with rig.socket(origin="https://elsewhere.example") as socket:
        assert socket.opened["type"] == "websocket.close"
    async with rig.socket(origin="http://test") as socket:
        assert socket.opened["type"] == "websocket.accept"


def _parked(rig: Rig) -> list[str]:
    """Return the streams that wait at the queue."""
    return [client for client in rig.queue.service._log._parked if client.startswith("stream")]
