"""Batches: from a list, an iterator or a file to results in order, with all that may go wrong between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiqueue.batch_protocol import BatchCall, BatchView
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import BatchNotFound, InvalidRequest, ValidationError
from aiqueue.models import BatchOptions
from aiqueue.orchestrator import submitting
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.submitting import PartSender
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


def rows(count: int) -> list[dict[str, Any]]:
    return [chat(f"row {number}") for number in range(count)]


def prompt(request: ProviderRequest) -> str:
    return str(request.body["messages"][-1]["content"])


def fail_rows(*numbers: int) -> Any:
    """Return a behaviour that fails the rows of these numbers for good."""

    def behave(request: ProviderRequest) -> None:
        if prompt(request) in {f"row {number}" for number in numbers}:
            raise InvalidRequest(f"Provider sim: 400 for {prompt(request)}", status=400)

    return behave


async def test_lines_in_are_results_and_errors_out_in_order(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    system.provider.behave = fail_rows(3, 2_345)
    await system.work()
    batch_id = await orchestrator.submit_batch_job(iter(rows(2_500)), {"name": "all of them"}, tags=["t"])
    found = [each async for each in orchestrator.iter_results(batch_id)]
    assert [each.index for each in found] == list(range(2_500))
    assert [each.index for each in found if each.job.error] == [3, 2_345]
    assert {each.job.status for each in found} == {"completed", "failed"}
    info = await orchestrator.wait_batch(batch_id)
    assert (info.status, info.total, info.completed, info.failed, info.percent) == ("completed", 2_500, 2_498, 2, 100.0)
    assert (info.name, info.tags, info.errors) == ("all of them", ("t",), {"invalid_request": 2})
    assert {error.message for error in info.first_errors} >= {"Provider sim: 400 for row 3"}
    assert info.has_ended


async def test_results_go_on_where_a_reader_stopped(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work()
    batch_id = await orchestrator.submit_batch_job(rows(20))
    first = [each async for each in orchestrator.iter_results(batch_id)][:7]
    rest = [each.index async for each in orchestrator.iter_results(batch_id, after=first[-1].after)]
    assert rest == list(range(7, 20))


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_page_of_large_results_is_a_short_one(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, ordered: bool
) -> None:
    system.provider.text = "x" * 2**19
    await system.work()
    batch_id = await orchestrator.submit_batch_job(rows(9))
    await orchestrator.wait_batch(batch_id)
    page, after, is_last = await orchestrator.results_page(batch_id, ordered=ordered)
    assert (len(page), after, is_last) == (7, 7, False)
    assert len([each async for each in orchestrator.iter_results(batch_id, ordered=ordered)]) == 9


@pytest.mark.parametrize("ordered", [True, False])
async def test_results_come_while_the_batch_runs(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, ordered: bool
) -> None:
    await system.work(slots=4)
    batch_id = await orchestrator.submit_batch_job(rows(40))
    results = orchestrator.iter_results(batch_id, ordered=ordered)
    seen = [(await anext(results)).index for _ in range(40)]
    assert sorted(seen) == list(range(40))
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_without_waiting_only_what_has_ended_comes(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    batch_id = await orchestrator.submit_batch_job(rows(3))
    assert [each async for each in orchestrator.iter_results(batch_id, wait=False)] == []
    info = await orchestrator.get_batch_job_status(batch_id, results=True)
    assert (info.status, info.waiting, info.results) == ("processing", 3, [])


async def test_a_file_of_lines_is_a_batch(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows(5)) + "\n\n")
    await system.work()
    info = await orchestrator.wait_batch(await orchestrator.submit_batch_job(path))
    assert info.completed == 5


async def test_rows_may_come_from_an_asynchronous_iterator(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work()
    first = await orchestrator.submit_batch_job(rows(1_200))
    again = (chat(f"again {each.index}") async for each in orchestrator.iter_results(first))
    info = await orchestrator.wait_batch(await orchestrator.submit_batch_job(again))
    assert (info.completed, info.total) == (1_200, 1_200)


async def test_a_bad_row_refuses_the_whole_batch_and_leaves_nothing(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator, tmp_path: Path
) -> None:
    bad = [*rows(1_500), chat("x", provider="nobody"), *rows(10)]
    with pytest.raises(ValidationError, match="job 1500: provider: unknown provider 'nobody'"):
        await orchestrator.submit_batch_job(bad)
    path = tmp_path / "rows.jsonl"
    for line in (b"{not json", b'{"model": "\xff"}', b"[" * 100_000):
        path.write_bytes(json.dumps(rows(1)[0]).encode() + b"\n" + line + b"\n")
        with pytest.raises(ValidationError, match=r"rows\.jsonl:2: is not JSON"):
            await orchestrator.submit_batch_job(path)
    with pytest.raises(ValidationError, match="is empty"):
        await orchestrator.submit_batch_job([])
    with pytest.raises(ValidationError, match="can't read"):
        await orchestrator.submit_batch_job(str(tmp_path / "missing.jsonl"))
    with pytest.raises(ValidationError, match="max_concurrency"):
        await orchestrator.submit_batch_job(rows(1), max_concurrency=-1)
    stats = await client.get_stats()
    assert (stats.total_jobs, stats.blocked_jobs) == (0, 0)
    assert not system.queue.service._engine.core.live


async def test_who_gives_up_while_the_batch_is_sealed_leaves_nothing_that_runs(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_queue, asked = system.transport.batch, list[str]()

    async def batch(call: BatchCall) -> BatchView:
        asked.append(call.action)
        view = await call_queue(call)
        if call.action == "seal":
            await asyncio.Event().wait()  # the answer does not come
        return view

    monkeypatch.setattr(system.transport, "batch", batch)
    submitting = asyncio.ensure_future(orchestrator.submit_batch_job(rows(3)))
    await until(lambda: "seal" in asked and system.queue.service._engine.core.lanes.queued("pool", lambda _: 9))
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    await system.work()
    await until(lambda: not system.queue.service._engine.core.live)
    assert (asked, system.provider.calls) == (["seal", "drop", "cancel"], [])
    assert system.queue.service.stats().adapter.cancelled_jobs == 3


async def test_rows_that_stop_coming_leave_nothing(system: ClientHarness, orchestrator: AsyncAIJobOrchestrator) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from rows(1_200)
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        await orchestrator.submit_batch_job(broken())
    assert not system.queue.service._engine.core.live


async def test_a_batch_whose_submitter_died_never_runs_and_is_forgotten(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    sender = PartSender(client.session, "batch-half", BatchOptions())
    ids = await sender.send(rows(5))
    await system.work()
    await turns(20)
    (info,) = await client.get_jobs(ids[:1])
    assert info is not None
    assert info.status == "blocked"
    await system.crash()
    assert not system.provider.calls
    system.queue.clock.advance(601.0)
    system.queue.service._ticker.ticked_at = system.queue.clock.now()  # it ran all the while
    system.queue.service._ticker.tick()
    with pytest.raises(BatchNotFound):
        await orchestrator.get_batch_job_status("batch-half")
    assert await client.get_jobs(ids) == [None] * 5


async def test_a_batch_goes_on_after_a_crash_and_nothing_runs_twice(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    await system.work(slots=3)
    batch_id = await orchestrator.submit_batch_job(rows(300), max_concurrency=2)
    for _ in range(4):
        before = system.queue.memory.commits
        await until(lambda before=before: system.queue.memory.commits > before + 8)
        await system.crash()
    info = await orchestrator.wait_batch(batch_id)
    assert info.completed == 300
    assert len({call.job_id for call in system.provider.calls}) == len(system.provider.calls) == 300
    assert system.provider.most_at_once <= 2


async def test_an_unknown_batch_is_not_found(orchestrator: AsyncAIJobOrchestrator) -> None:
    for call in (
        orchestrator.get_batch_job_status("nobody"),
        orchestrator.cancel_batch_job("nobody"),
        orchestrator.retry_failed("nobody"),
        anext(orchestrator.iter_results("nobody")),
    ):
        with pytest.raises(BatchNotFound, match="Batch not found: nobody"):
            await call


async def test_large_payloads_go_in_smaller_parts(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "_PART_BYTES", 2_500)
    await system.work()
    batch_id = await orchestrator.submit_batch_job([chat("x" * 900 + str(number)) for number in range(9)])
    found = [each async for each in orchestrator.iter_results(batch_id)]
    assert [each.index for each in found] == list(range(9))
    stored = system.queue.journal.batch(batch_id)
    assert stored is not None
    assert [part.jobs for part in system.queue.journal.parts(stored[0])] == [2, 2, 2, 2, 1]


async def test_rows_that_come_slowly_keep_their_batch(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiqueue.orchestrator.submitting._TOUCH_S", 0.001, raising=False)
    queue = system.queue
    groups = queue.service._engine.core.groups.live

    async def slow_rows() -> AsyncIterator[dict[str, Any]]:
        for row in rows(1_001):
            yield row
        for _ in range(5):  # nine minutes each
            queue.clock.advance(540.0)
            queue.service._ticker.ticked_at = queue.clock.now()
            await until(lambda: [each.touched_at for each in groups.values()] == [queue.clock.now()])
            queue.service._ticker.tick()
        yield rows(1)[0]

    batch_id = await orchestrator.submit_batch_job(slow_rows())
    status = await orchestrator.get_batch_job_status(batch_id)
    assert (status.status, status.total) == ("processing", 1_002)
