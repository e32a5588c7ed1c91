"""The queue actor ends itself where memory and journal part, and Ray starts it again: with the real actors."""

from __future__ import annotations

import asyncio
import threading

from actors.options import POOL_MANAGER_NAME
from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME, RayTransport
from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import Submission, SubmitGroup
from tests.crash.test_kills import kill, pid_of
from tests.running_system import chat


def test_a_commit_that_the_journal_refuses_ends_the_actor_which_goes_on_and_says_why(own_system: launch.System) -> None:
    adapter, namespace = own_system.adapter, own_system.settings.namespace
    told, heard = list[dict[str, object]](), threading.Event()

    @adapter.on("queue:restarted")
    def restarted(event: object) -> None:
        told.append(event.data)  # type: ignore[attr-defined]
        heard.set()

    first = adapter.submit_job(chat("slow", "first"))
    adapter.wait(first)
    before, manager = pid_of(QUEUE_ACTOR_NAME, namespace), pid_of(POOL_MANAGER_NAME, namespace)
    waiting = adapter.submit_jobs([chat("slow", str(number)) for number in range(20)])

    async def submit_a_used_id() -> None:
        """As no client of ours does: a used id, without saying that it may be one."""
        transport = RayTransport(namespace)
        (view,) = await transport.get_jobs([first], with_payload=True)
        assert view is not None
        view.header.created_at = 0.0
        try:
            await transport.submit([SubmitGroup([Submission(first, view.header, view.payload)])])
        except QueueUnavailable:
            return
        raise AssertionError("a used id was acknowledged")

    asyncio.run(submit_a_used_id())
    infos = adapter.wait_all(waiting)
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}, "no call was repeated"
    assert pid_of(QUEUE_ACTOR_NAME, namespace) != before
    assert pid_of(POOL_MANAGER_NAME, namespace) == manager
    assert heard.wait(30)
    assert "JournalRefused" in str(told[0]["reason"])
    stats = adapter.get_stats()
    assert stats.restarts >= 1
    assert (stats.total_jobs, stats.completed_jobs) == (21, 21)


def test_a_killed_queue_tells_that_it_was_started_again(own_system: launch.System) -> None:
    adapter, namespace = own_system.adapter, own_system.settings.namespace
    heard = threading.Event()
    adapter.on("queue:restarted", lambda event: heard.set())
    adapter.wait(adapter.submit_job(chat("slow")))
    kill(QUEUE_ACTOR_NAME, namespace)
    assert heard.wait(60)
    stats = adapter.get_stats()
    assert (stats.restarts, "was killed, or it hung" in stats.restart_reason) == (1, True)
