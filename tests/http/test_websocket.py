"""The WebSocket, over ASGI with the real client and queue behind."""

from __future__ import annotations

import pytest

from aiqueue.testing.jobs import chat
from serve import following
from serve.routes import socket as socket_route
from tests.http.rig import Rig
from tests.tools.turns import until


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


async def test_events_subscribed_to_by_name_come_beside_the_updates(rig: Rig) -> None:
    job_id = await rig.adapter.submit_job(chat())
    async with rig.socket() as socket:
        socket.say("subscribe:job", job_id)
        assert (await socket.hear())["data"]["status"] == "queued"
        socket.say("subscribe:events", ["worker-pool:*", "job:cancelled"])
        await until(lambda: socket._incoming.empty())
        await rig.transport.announce("worker-pool:worker-replaced", {"worker_id": "w-1", "reason": "hung"})
        other = await rig.adapter.submit_job(chat())
        await rig.adapter.cancel_job(other)
        await rig.adapter.cancel_job(job_id)
        replaced, others_end, own_end, update = [await socket.hear() for _ in range(4)]
        socket.say("subscribe:events", [])
        await until(lambda: socket._incoming.empty())
        await rig.transport.announce("worker-pool:scaled-up", {"new_size": 2})
        socket.say("subscribe:job", job_id)
        assert (await socket.hear())["event"] == "job:update"
    assert replaced["event"] == "worker-pool:worker-replaced"
    assert (replaced["data"]["workerId"], replaced["data"]["reason"]) == ("w-1", "hung")
    assert (others_end["event"], others_end["data"]["jobId"]) == ("job:cancelled", other)
    assert (own_end["event"], own_end["data"]["jobId"]) == ("job:cancelled", job_id)
    assert update == {"event": "job:update", "data": {**update["data"], "jobId": job_id, "status": "cancelled"}}


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
    assert not rig.followers()


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
        ('{"event": "subscribe:events", "data": ["job:done"]}', 1008),
        ('{"event": "subscribe:events", "data": [["job:failed"]]}', 1008),
        ("x" * 70_000, 1009),
    ],
)
async def test_a_message_that_is_none_closes_the_socket(rig: Rig, text: str, code: int) -> None:
    async with rig.socket() as socket:
        socket.put(type="websocket.receive", text=text)
        assert await socket.hear() == {"closed": code}


async def test_one_socket_follows_so_many_jobs_and_no_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_JOBS", 2)
    async with rig.socket() as socket:
        for job_id in await rig.adapter.submit_jobs([chat()] * 3):
            socket.say("subscribe:job", job_id)
        while "closed" not in (heard := await socket.hear()):
            pass
        assert heard == {"closed": 1008}
