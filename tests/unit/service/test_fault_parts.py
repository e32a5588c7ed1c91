"""A worker's call has parts: it is heard, reports, tells what it runs, is given work. A bug in one stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import pytest

from aiqueue.engine import exchange
from aiqueue.errors import QueueUnavailable
from aiqueue.protocol import ExchangeCall, Outcome
from aiqueue.testing.jobs import POOL, completed
from tests.tools.faulty_queue import Bug, Queue
from tests.tools.turns import turns

MakeBug = Callable[[pytest.MonkeyPatch], Bug]
HEARTBEAT_S = 1.0  # so a lease is shorter than most pauses
MINUTES_S = 180


def hearing_fails(patch: pytest.MonkeyPatch) -> Bug:
    """The worker can't be heard."""

    def bug(engine: Any) -> None:
        heard = engine.core.leases.heard

        def broken(worker_id: str, *rest: Any, **more: Any) -> Any:
            if worker_id == "ill":
                raise KeyError("hear")
            return heard(worker_id, *rest, **more)

        engine.core.leases.heard = broken

    return bug


def claims_fail(patch: pytest.MonkeyPatch) -> Bug:
    """No work can be handed out."""

    def broken(*rest: Any, **more: Any) -> Any:
        raise KeyError("claim")

    def bug(engine: Any) -> None:
        engine.core.lanes.take = broken

    return bug


def accounts_fail(patch: pytest.MonkeyPatch) -> Bug:
    """What a worker runs can't be compared with what it holds."""

    def broken(*rest: Any) -> Any:
        raise KeyError("account")

    return lambda engine: patch.setattr(exchange, "_agree", broken)


def rows_of_c_fail(patch: pytest.MonkeyPatch) -> Bug:
    """Nothing can be written about job c. That shows when the engine has no job in hand."""

    def bug(engine: Any) -> None:
        core = engine.core
        seal, seq = core.seal, core.live["c"].seq if "c" in core.live else 0

        def broken(turn: Any) -> None:
            if seq in [row[0] for row in turn.rows.states]:
                raise KeyError("row")
            seal(turn)

        core.seal = broken

    return bug


def nothing_fails(engine: Any) -> None:
    """There is no bug yet."""


class IllWorker:
    """A worker that runs a, b and c, reports what ends until an answer says that it arrived, and tells what it runs."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.runs = {"a", "b", "c"}
        self.unheard: list[Outcome] = []

    def end(self, job_id: str) -> None:
        """A job has ended."""
        self.runs.discard(job_id)
        self.unheard.append(completed(job_id))

    async def call(self) -> None:
        """Call the queue once."""
        held = [(job_id, 1) for job_id in sorted(self.runs)]
        if await self.queue.ask("ill", *self.unheard, running=held):
            self.unheard = []


BUGS: tuple[MakeBug, ...] = (hearing_fails, accounts_fail, claims_fail, rows_of_c_fail)


@pytest.mark.parametrize("bugs", [some for count in range(1, 5) for some in combinations(BUGS, count)])
async def test_a_worker_keeps_its_jobs_and_is_listened_to_whatever_part_of_its_calls_ends_the_process(
    bugs: Sequence[MakeBug], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(nothing_fails, heartbeat_s=HEARTBEAT_S)
    await queue.now.submit("a", "b", "c")
    assert sorted(await queue.now.claim(3, "ill")) == ["a", "b", "c"]
    made = [make(monkeypatch) for make in bugs]

    def all_bugs(engine: Any) -> None:
        for bug in made:
            bug(engine)

    queue.bug = all_bugs
    queue.bug(queue.now.service._engine)
    worker = IllWorker(queue)
    calls: dict[str, int] = {}
    for second in range(MINUTES_S):
        for job_id, at in (("c", 2), ("a", 5), ("b", MINUTES_S - 20)):
            if second == at:
                worker.end(job_id)
        await worker.call()
        reply = await queue.ask("well")
        assert reply is None or not reply.claims, f"{reply} after {second} s: a job is run twice"
        for outcome in worker.unheard:
            calls[outcome.job_id] = calls.get(outcome.job_id, 0) + 1
        queue.wait(1.0)
        queue.now.service._ticker.tick()
    ends = {job_id: (await queue.now.view(job_id)).status for job_id in "abc"}
    assert ends == {"a": "completed", "b": "completed", "c": "failed" if rows_of_c_fail in bugs else "completed"}
    assert worker.unheard == []
    assert calls.get("b", 0) <= len(bugs), "the bug is known: only what is tried again may end the process"
    assert queue.ends <= 10 * len(bugs)
    await queue.now.service.close()


@pytest.mark.parametrize("slots", [0, 1])
async def test_an_overtaken_call_whose_outcome_may_be_at_fault_brings_back_no_slots(slots: int) -> None:
    queue = Queue(nothing_fails)
    await queue.now.submit("a")
    first = ExchangeCall("worker-1", POOL, 4, number=1)
    assert [job.job_id for job in (await queue.now.service.exchange(first)).claims] == ["a"]
    queue.now.service._commits.append = lambda *_: 1 // 0  # type: ignore[assignment,method-assign]
    late = ExchangeCall("worker-1", POOL, 4, [completed("a")], number=2)
    with pytest.raises(QueueUnavailable):
        await queue.now.service.exchange(late)
    await queue.back()
    poll = asyncio.ensure_future(
        queue.now.service.exchange(ExchangeCall("worker-1", POOL, slots, running=[("a", 1)], number=3))
    )
    await turns(3)
    assert (await queue.now.service.exchange(late)).overtaken
    assert (await queue.now.view("a")).status == "completed"
    await queue.now.submit("b", "c", "d")
    queue.now.service._workers.parked.send_home("worker-1")
    assert len((await poll).claims) == slots
    await queue.now.service.close()
