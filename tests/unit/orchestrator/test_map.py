"""``map``: what a run has finished is not run again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import InvalidRequest, ProviderServerError, ValidationError
from aiqueue.models import BatchOptions
from aiqueue.orchestrator.mapping import Mapping, MapResult
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.submitting import PartSender
from aiqueue.protocol import SubmitGroup, SubmitReply
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import chat
from tests.tools.broken_journal import BrokenJournal
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import until


async def test_a_second_run_runs_only_what_is_new(system: ClientHarness, orchestrator: AsyncAIJobOrchestrator) -> None:
    await system.work()
    first = [each async for each in orchestrator.map([chat(str(n)) for n in range(5)], run_id="r")]
    assert [(each.index, each.job.status) for each in first] == [(n, "completed") for n in range(5)]
    await system.crash()
    again = [each async for each in orchestrator.map([chat(str(n)) for n in range(8)], run_id="r")]
    assert [each.job.job_id for each in again[:5]] == [each.job.job_id for each in first]
    assert len(system.provider.calls) == 8


async def test_another_run_runs_everything(system: ClientHarness, orchestrator: AsyncAIJobOrchestrator) -> None:
    await system.work()
    for run in ("r", "s"):
        async for _ in orchestrator.map([chat("same")], run_id=run):
            pass
    assert len(system.provider.calls) == 2


async def test_what_failed_is_tried_again(system: ClientHarness, orchestrator: AsyncAIJobOrchestrator) -> None:
    def fail(request: ProviderRequest) -> None:
        if "1" in str(request.body):
            raise InvalidRequest("Provider sim: 400", status=400)

    await system.work()
    payloads = [chat(str(n)) for n in range(3)]
    system.provider.behave = fail
    first = [each.job.status async for each in orchestrator.map(payloads, run_id="r")]
    assert first == ["completed", "failed", "completed"]
    system.provider.behave = lambda request: None
    assert [each.job.status async for each in orchestrator.map(payloads, run_id="r")] == ["completed"] * 3
    assert len(system.provider.calls) == 4


async def test_a_driver_that_died_while_it_submitted_leaves_nothing_in_the_way(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    payloads: list[dict[str, Any]] = [chat(str(n)) for n in range(4)]
    dead = Mapping(client, "r", None, BatchOptions())
    sender = PartSender(client.session, "batch-dead", BatchOptions(), run="r")
    await dead._submit_new(sender, list(payloads))
    await system.work()
    assert [each.job.status async for each in orchestrator.map(payloads, run_id="r")] == ["completed"] * 4


async def test_a_key_that_comes_twice_is_an_error_and_submits_nothing(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    with pytest.raises(ValidationError, match="job 1: key: key 'a' is that of row 0 too"):
        async for _ in orchestrator.map([chat(c) for c in "abc"], run_id="r", key=lambda row: "a"):
            pass
    assert not system.queue.service._engine.core.live


async def test_of_two_programs_that_begin_a_run_the_first_is_told(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work()
    other = AsyncAIJobOrchestrator(await system.client())
    rows = [chat(f"row {number}") for number in range(2_500)]

    async def interrupted() -> AsyncIterator[dict[str, Any]]:
        for number, row in enumerate(rows):
            if number == 2_000:
                assert len([each async for each in other.map(rows, run_id="r")]) == 2_500
            yield row

    with pytest.raises(ValidationError, match="run_id: 'r' was begun again by another program"):
        await anext(orchestrator.map(interrupted(), run_id="r"))
    assert not [task for task in asyncio.all_tasks() if "_keep_open" in repr(task.get_coro())], "it says that it lives"
    assert len([each async for each in orchestrator.map(rows, run_id="r")]) == 2_500
    assert len(system.provider.calls) == 2_500


class LateSubmits(InProcessTransport):
    """A queue that a client's submits reach late."""

    def __init__(self, system: ClientHarness) -> None:
        super().__init__(system.queue.service)
        self.sent, self.arrive = asyncio.Event(), asyncio.Event()

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        self.sent.set()
        await self.arrive.wait()
        return await super().submit(groups, linger_s=linger_s)


async def test_rows_that_another_program_ran_since_they_were_sought_are_not_submitted_again(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work()
    transport = LateSubmits(system)
    late = AsyncAIJobOrchestrator(await system.client(transport))
    first = asyncio.ensure_future(anext(late.map([chat("a"), chat("b")], run_id="r")))
    await transport.sent.wait()
    assert len([each async for each in orchestrator.map([chat("a"), chat("b")], run_id="r")]) == 2
    transport.arrive.set()
    with pytest.raises(ValidationError, match="run_id: 'r' was begun again by another program"):
        await first
    assert len(system.provider.calls) == 2
    assert not system.queue.service._faults.failed


class FailedRow:
    """A run of two rows, of which ``!b`` is a dead letter; its provider is well again."""

    def __init__(self, system: ClientHarness, client: AsyncAIQueueAdapter, made: AsyncAIJobOrchestrator) -> None:
        self.system, self.client, self.made = system, client, made
        self.dead = ""

    async def map(self) -> list[MapResult]:
        return [each async for each in self.made.map([chat("a"), chat("!b")], run_id="r", max_retries=0)]

    async def repeat(self, how: str) -> None:
        """Let the row fail, and put another job in its place."""

        def fail(request: ProviderRequest) -> None:
            if "!" in str(request.body):
                raise ProviderServerError("Provider sim: 503", status=503)

        self.system.provider.behave = fail
        await self.system.work()
        first = (await self.map())[1].job
        assert first.status == "dead_letter"
        self.dead = first.job_id
        self.system.provider.behave = lambda request: None
        self.system.provider.hold()
        if how == "retry":
            assert (await self.made.retry_failed(str(first.batch_id))).retried == 1
        else:
            await self.client.dead_letters.redrive([self.dead])
        if how == "redrive, deleted":
            await self.client.dead_letters.delete([self.dead])


REPEATS = ["retry", "redrive", "redrive, deleted"]


@pytest.mark.parametrize("how", REPEATS)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_row_that_a_retry_or_redrive_completed_is_not_run_again(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator, how: str, restarted: bool
) -> None:
    row = FailedRow(system, client, orchestrator)
    await row.repeat(how)
    (successor,) = system.queue.service._engine.core.live
    system.provider.release()
    await until(lambda: not system.queue.service._engine.core.live)
    if restarted:
        await system.crash()
    again = await row.map()
    assert [each.job.status for each in again] == ["completed", "completed"]
    assert len(system.provider.calls) == 3
    assert again[1].job.job_id == successor


@pytest.mark.parametrize("how", REPEATS)
async def test_a_row_that_a_retry_or_redrive_still_runs_is_waited_for(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator, how: str
) -> None:
    row = FailedRow(system, client, orchestrator)
    await row.repeat(how)
    (successor,) = system.queue.service._engine.core.live
    again = asyncio.create_task(row.map())
    feed = client._feed
    assert feed is not None
    await until(lambda: feed._waiting)
    assert [*system.queue.service._engine.core.live] == [successor]
    system.provider.release()
    assert (await again)[1].job.job_id == successor
    assert len(system.provider.calls) == 3


@pytest.mark.parametrize("heals", [True, False])
async def test_a_row_whose_job_can_not_be_read_is_not_run_again(monkeypatch: pytest.MonkeyPatch, heals: bool) -> None:
    async def heal() -> None:
        await until(lambda: journal.reads > 5)  # more than one look costs
        journal.broken.clear()
        journal.broken_states.clear()

    monkeypatch.setattr("aiqueue.orchestrator.mapping._LOOK_AGAIN_S", 0.0)
    journal = BrokenJournal()
    async with ClientHarness(journal=journal) as system:
        orchestrator = AsyncAIJobOrchestrator(await system.client())
        await system.work()
        payloads = [chat(str(number)) for number in range(3)]
        first = [each.job async for each in orchestrator.map(payloads, run_id="r")]
        for broken in (journal.broken, journal.broken_states):
            broken.add(first[1].job_id)
        healing = asyncio.create_task(heal()) if heals else None
        again = [each.job async for each in orchestrator.map(payloads, run_id="r")]
        assert [info.job_id for info in again] == [info.job_id for info in first]
        assert [info.status for info in again] == ["completed", "completed" if heals else "failed", "completed"]
        assert len(system.provider.calls) == 3
        assert healing is None or healing.done()


async def test_a_row_that_failed_as_often_as_it_may_shows_its_last_failure_and_the_others_go_on(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: ProviderRequest) -> None:
        if "!" in str(request.body):
            raise InvalidRequest("Provider sim: 400", status=400)

    monkeypatch.setattr("aiqueue.orchestrator.tries._MOST", 3)
    await system.work()
    system.provider.behave = fail
    jobs: list[str] = []
    for run in range(5):
        found = [each.job async for each in orchestrator.map([chat("!b"), chat(str(run))], run_id="r")]
        assert [info.status for info in found] == ["failed", "completed"]
        jobs.append(found[0].job_id)
    assert len(set(jobs)) == 3
    assert jobs[2:] == [jobs[2]] * 3
    assert len(system.provider.calls) == 5 + 3
