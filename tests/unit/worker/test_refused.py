"""A worker and a queue whose releases do not understand each other."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest

from aiqueue.errors import IncompatibleVersion, QueueNotRunning
from aiqueue.protocol import ExchangeCall, ExchangeReply
from aiqueue.scaling import Health
from aiqueue.scaling.health import HealthLimits
from aiqueue.scaling.load import WorkerReport
from aiqueue.scaling.roster import REPLACED, UNHEALTHY, Announce, Drain, Roster, Start
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import POOL
from aiqueue.versions import PROTOCOL
from aiqueue.worker import loop as loop_module
from aiqueue.worker.loop import WorkerLoop
from aiqueue.worker.runner import JobRunner
from tests.tools.turns import turns, until
from tests.unit.worker.conftest import System

WHY = "this process speaks protocol 3, and the queue protocol 1"


class Upgraded(InProcessTransport):
    """A way to a queue that was replaced by one of another release: it is asked nothing."""

    refuses, refused = False, 0
    why: Exception = IncompatibleVersion(WHY)

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        if self.refuses:
            self.refused += 1
            raise self.why
        return await super().exchange(call)


async def test_a_worker_whose_queue_is_gone_says_so_once_and_joins_the_next_one(
    system: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop_module, "_NO_QUEUE_S", 0.0)
    transport = system.transport = Upgraded(system.queue.service)
    transport.why = QueueNotRunning("no queue is running")
    system.provider.hold()
    await system.queue.submit("a")
    async with system.worker():
        await until(lambda: system.provider.running)
        transport.refuses = True
        system.provider.release()
        with caplog.at_level(logging.INFO, "aiqueue.worker.loop"):
            await until(lambda: transport.refused > 20)
        transport.refuses = False
        assert await system.ended("a") == ["completed"]
    said = [
        (record.levelname, bool(record.exc_info)) for record in caplog.records if record.name == "aiqueue.worker.loop"
    ]
    assert said == [("WARNING", False)]


async def test_a_worker_of_another_release_says_so_once_and_keeps_what_is_done_until_the_queue_understands_it(
    system: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop_module, "_REFUSED_S", 0.0)
    transport = system.transport = Upgraded(system.queue.service)
    system.provider.hold()
    await system.queue.submit("a")
    async with system.worker() as worker:
        await until(lambda: system.provider.running)
        transport.refuses = True
        system.provider.release()
        with caplog.at_level(logging.INFO, "aiqueue.worker.loop"):
            await until(lambda: transport.refused > 20)
        assert worker.refused == WHY
        assert [(record.levelname, record.exc_info) for record in caplog.records] == [("ERROR", None)]
        transport.refuses = False
        assert await system.ended("a") == ["completed"], "its call was paid"
        await until(lambda: not worker.refused)


async def test_a_refused_worker_does_not_try_again_at_once(system: System) -> None:
    transport = Upgraded(system.queue.service)
    transport.refuses = True
    runner = JobRunner(lambda name: system.provider, max_result_bytes=1_000)
    working = asyncio.create_task(WorkerLoop("w", POOL, 4, queue=transport, runner=runner).run())
    await until(lambda: transport.refused)
    await turns(100)
    assert transport.refused <= 2, "as many polls as are under way at once"
    working.cancel()


async def test_a_worker_names_its_protocol_in_each_exchange(system: System) -> None:
    async with system.worker():
        await until(lambda: system.transport.sent)
    assert {call.protocol for call in system.transport.sent} == {PROTOCOL}


def test_a_refused_worker_is_replaced_with_that_reason_and_its_successors_ever_later() -> None:
    roster, health = Roster("p", 1), Health(HealthLimits())
    told: list[tuple[str, str]] = []
    starts: list[float] = []
    now = 0.0
    while len(starts) < 4:
        actions = roster.resize(1, {}, now=now)
        for name in [action.name for action in actions if isinstance(action, Start)]:
            starts.append(now)
            actions += roster.spoke(name, WorkerReport(f"w{len(starts)}", 1, "n"))
        for member in [member for member in roster.members.values() if member.worker_id]:
            report = WorkerReport(member.worker_id, 1, "n", trouble=WHY, refused=True)
            actions += roster.spoke(member.name, report)
            verdict = health.reported(report)
            assert verdict is not None
            actions += roster.replace(member.name, verdict.reason, hard=verdict.hard)
        for name in [action.name for action in actions if isinstance(action, Drain)]:
            actions += roster.drained(name)
        told += [(each.event, str(each.data["reason"])) for each in actions if isinstance(each, Announce)]
        now += 1.0
    assert {event for event, _ in told} == {UNHEALTHY, REPLACED}
    assert all(reason.startswith(WHY) for _, reason in told)
    assert len([event for event, _ in told if event == UNHEALTHY]) == 4, "once for each"
    gaps = [later - sooner for sooner, later in pairwise(starts)]
    assert gaps == sorted(gaps), gaps
    assert gaps[-1] >= 8.0
