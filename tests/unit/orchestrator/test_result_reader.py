"""Many readers of results, and one look at the queue for all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import InvalidRequest, JobNotFound, QueueUnavailable, RecordUnreadable, ValidationError
from aiqueue.orchestrator import ray_tasks, result_reader
from aiqueue.orchestrator.result_reader import ResultReader, value_of
from aiqueue.protocol import JobView
from aiqueue.results import JobResult
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.odd_rows import spoil
from tests.tools.turns import until


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again at once."""
    monkeypatch.setattr(result_reader, "_LOOK_S", (0.0, 0.0))


async def test_however_many_wait_one_question_asks_for_all(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    reader, most = ResultReader(system.transport), list[int]()
    look = system.transport.get_states

    async def counted(ids: list[str]) -> list[str]:
        most.append(len(ids))
        return await look(ids)

    system.transport.get_states = counted  # type: ignore[assignment,method-assign]
    ids = await client.submit_jobs([chat(str(n)) for n in range(200)])
    reads = [asyncio.ensure_future(reader.read(job_id)) for job_id in [*ids, ids[0]]]
    await until(lambda: len(most) > 3)
    assert set(most[1:]) == {200}, "the one that two wait for is asked for once"
    await system.work()
    results = await asyncio.gather(*reads)
    assert {result.text for result in results} == {"Hi there"}
    asked = len(most)
    assert (await reader.read(ids[7])).text == "Hi there"
    assert most[asked:] == [1]


async def test_errors_are_those_of_the_job(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    def behave(request: object) -> None:
        raise InvalidRequest("Provider sim: 400", status=400)

    system.provider.behave = behave
    await system.work()
    reader = ResultReader(system.transport)
    with pytest.raises(InvalidRequest, match="400"):
        await reader.read(await client.submit_job(chat()))
    with pytest.raises(JobNotFound):
        await reader.read("01985a30-0000-7000-8000-00000000ff00")


async def test_a_queue_that_is_gone_is_told_to_all_and_asked_again_later(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    reader = ResultReader(system.transport)
    ids = await client.submit_jobs([chat(), chat()])
    system.transport.lose_calls("get_states")
    ends = await asyncio.gather(*map(reader.read, ids), return_exceptions=True)
    assert [type(end) for end in ends] == [QueueUnavailable] * 2
    await system.work()
    assert (await reader.read(ids[0])).text == "Hi there"


async def test_a_reader_of_what_is_no_id_keeps_no_other_from_its_result(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    reader = ResultReader(system.transport)
    reading = asyncio.ensure_future(reader.read(await client.submit_job(chat())))
    with pytest.raises(ValidationError, match="job_id: holds half of a surrogate pair"):
        await reader.read("\ud800")
    await system.work()
    assert (await reading).text == "Hi there"


@pytest.mark.parametrize("damaged", [{"result": b"\xff"}, {"result": b"{"}, {"attempts": [b"\xff"]}])
async def test_a_result_whose_row_is_damaged_is_an_error_with_a_name(
    damaged: dict[str, Any], system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    await system.work()
    job_id = await client.submit_job(chat())
    await client.wait(job_id)
    (view,) = await system.transport.get_jobs([job_id])
    assert view is not None
    found = value_of(replace(view, **damaged))
    assert isinstance(found, RecordUnreadable)


@pytest.mark.parametrize("damage", ["result", "row"])
async def test_a_fan_in_leaves_out_no_result_that_can_not_be_read(
    damage: str, system: ClientHarness, client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await system.work()
    ids = await client.submit_jobs([chat(str(n)) for n in range(3)])
    await client.wait_all(ids)
    read = system.transport.get_jobs

    async def damaged(asked: list[str], **more: Any) -> list[JobView | None]:
        views = await read(asked, **more)
        return [replace(view, result=b"\xff") if view and view.id == ids[1] else view for view in views]

    if damage == "result":
        monkeypatch.setattr(system.transport, "get_jobs", damaged)
    else:
        spoil(system.queue.memory, {("jobs", ids[1])})
    monkeypatch.setattr(ray_tasks, "RayTransport", lambda namespace: system.transport)
    for on_error in ("fail", "skip"):
        with pytest.raises(RecordUnreadable, match=ids[1]):
            await ray_tasks._values("namespace", ids, on_error)
    found = await ray_tasks._values("namespace", ids, "include")
    assert [type(value) for value in found] == [JobResult, RecordUnreadable, JobResult]


async def test_a_fan_in_that_skips_leaves_out_a_job_that_failed(
    system: ClientHarness, client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await system.work()
    done, cancelled = await client.submit_job(chat()), await client.submit_job(chat(), {"delay": 1_000_000})
    await client.wait(done)
    await client.cancel_job(cancelled)
    monkeypatch.setattr(ray_tasks, "RayTransport", lambda namespace: system.transport)
    assert len(await ray_tasks._values("namespace", [done, cancelled], "skip")) == 1


async def test_a_fan_in_that_skips_leaves_out_a_job_that_failed_since_a_start_could_not_load_it(
    system: ClientHarness, client: AsyncAIQueueAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await client.submit_jobs([chat(str(n)) for n in range(3)])
    disk = system.queue.memory._disk
    disk.states[disk.seqs[ids[1]]] = ("queued", b"\xc1 no progress")
    await system.crash()
    await system.work()
    infos = await client.wait_all(ids)
    assert [info.status for info in infos] == ["completed", "failed", "completed"]
    monkeypatch.setattr(ray_tasks, "RayTransport", lambda namespace: system.transport)
    assert len(await ray_tasks._values("namespace", ids, "skip")) == 2
