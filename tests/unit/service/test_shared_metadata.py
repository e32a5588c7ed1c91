"""What jobs that are submitted together share is sent, written and kept once, and shown with each of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from aiqueue import submit_format
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.engine.effects import Effects, Rows
from aiqueue.errors import DuplicateJob, InvalidRequest
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.protocol import SubmitGroup
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import chat, settings
from tests.tools.fake_provider import FakeProvider
from tests.tools.service_harness import ServiceHarness

JOBS = 200
METADATA = {"note": "x" * 16_000}
WEIGHT = len(msgspec.json.encode(METADATA))
PER_JOB = 1_000  # bytes for all else that is kept of one


class Disk:
    """A client and a queue with a journal on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queue = ServiceHarness(settings(models=("model-a",)), SqliteJournal(path))
        self.adapter = AsyncAIQueueAdapter(InProcessTransport(self.queue.service))

    async def restart(self) -> None:
        await self.adapter.stop()
        await self.queue.service.close()
        self.__init__(self.path)  # type: ignore[misc]
        await self.adapter.start()

    def bytes_in(self, table: str, *columns: str) -> int:
        with closing(sqlite3.connect(self.path)) as database:
            weights = " + ".join(f"length({column})" for column in columns)
            (found,) = database.execute(f"SELECT coalesce(sum({weights}), 0) FROM {table}").fetchone()
        return int(found)

    @property
    def written(self) -> int:
        """Bytes that are kept of jobs, as far as clients have sent them."""
        return self.bytes_in("jobs", "id", "header", "payload") + sum(
            self.bytes_in(table, column) for table, column in (("shared", "metadata"), ("batches", "spec"))
        )


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    """Return a client and its queue."""
    made = Disk(tmp_path / "journal.db")
    async with made.adapter:
        yield made
    await made.queue.service.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the submit calls, as they are made."""
    sizes: list[int] = []
    encode = submit_format.encode_groups

    def counted(groups: list[SubmitGroup]) -> bytes:
        sizes.append(len(found := encode(groups)))
        return found

    monkeypatch.setattr("aiqueue.testing.in_process.encode_groups", counted)
    return sizes


async def submitted(disk: Disk, way: str) -> list[str]:
    payloads, options = [chat()] * JOBS, {"metadata": METADATA}
    orchestrator = AsyncAIJobOrchestrator(disk.adapter)
    if way == "list":
        return await disk.adapter.submit_jobs(payloads, options)
    if way == "batch":
        return (await disk.adapter.submit_batch(payloads, options))[1]
    if way == "chain":
        return list(await orchestrator.create_job_chain(payloads, options))
    return list((await orchestrator.fan_out(payloads, options)).job_ids)


@pytest.mark.parametrize("way", ["list", "batch", "chain", "parts"])
async def test_metadata_of_many_jobs_is_sent_and_written_once_and_shown_with_each(
    disk: Disk, sent: list[int], way: str
) -> None:
    ids = await submitted(disk, way)
    assert sum(sent) <= 2 * WEIGHT + JOBS * PER_JOB
    assert disk.written <= 2 * WEIGHT + JOBS * PER_JOB
    await disk.restart()
    found = await disk.adapter.get_jobs(ids)
    assert [info and info.metadata for info in found] == [METADATA] * JOBS


async def test_a_single_job_has_its_metadata_in_its_own_row(disk: Disk) -> None:
    job_id = await disk.adapter.submit_job(chat(), {"metadata": METADATA})
    assert disk.bytes_in("shared", "metadata") == 0
    info = await disk.adapter.get_job_status(job_id)
    assert info is not None
    assert info.metadata == METADATA


async def test_jobs_beside_those_that_share_have_none_of_it(disk: Disk) -> None:
    before = await disk.adapter.submit_job(chat())
    await disk.adapter.submit_jobs([chat()] * 3, {"metadata": {"of": "the middle"}})
    after = await disk.adapter.submit_jobs([chat()] * 2)
    found = await disk.adapter.get_jobs([before, *after])
    assert [info and info.metadata for info in found] == [{}, {}, {}]


async def test_what_is_shared_goes_with_the_last_job_that_has_it(disk: Disk) -> None:
    ids = await disk.adapter.submit_jobs([chat()] * 3, {"metadata": METADATA})
    others = await disk.adapter.submit_jobs([chat()] * 2, {"metadata": {"other": 1}})
    journal = disk.queue.journal
    seqs = [journal.jobs([job_id])[job_id].seq for job_id in ids]
    disk.queue.service._commits.append(_forgetting(seqs[:2]))
    await disk.queue.service._commits.settled()
    kept = (await disk.adapter.get_jobs(ids))[2]
    assert kept is not None
    assert kept.metadata == METADATA
    disk.queue.service._commits.append(_forgetting(seqs[2:]))
    await disk.queue.service._commits.settled()
    assert disk.bytes_in("shared", "metadata") == len(msgspec.json.encode({"other": 1}))
    assert [info and info.metadata for info in await disk.adapter.get_jobs(others)] == [{"other": 1}] * 2


def _forgetting(seqs: list[int]) -> Effects:
    return Effects(rows=Rows(deletes=seqs))


async def test_a_job_sent_again_with_other_metadata_is_another_job(disk: Disk) -> None:
    job_id = "018f4d1e-0000-7000-8000-000000000001"
    options = {"job_id": job_id, "metadata": {"a": 1}}
    assert await disk.adapter.submit_job(chat(), options) == job_id
    assert await disk.adapter.submit_job(chat(), options) == job_id
    with pytest.raises(DuplicateJob):
        await disk.adapter.submit_job(chat(), options | {"metadata": {"a": 2}})


async def test_jobs_of_a_list_sent_again_are_known_with_what_they_share(disk: Disk) -> None:
    options = {"idempotency_key": "k", "metadata": METADATA}
    ids = await disk.adapter.submit_jobs([chat()] * 3, options)
    assert await disk.adapter.submit_jobs([chat()] * 3, options) == ids
    transport = disk.adapter.session.transport
    assert isinstance(transport, InProcessTransport)
    transport.lose_answers("submit")
    more = await disk.adapter.submit_jobs([chat()] * 3, {"metadata": METADATA})
    assert [info and info.metadata for info in await disk.adapter.get_jobs(more)] == [METADATA] * 3


async def test_successors_of_failed_jobs_share_it_too(disk: Disk) -> None:
    orchestrator = AsyncAIJobOrchestrator(disk.adapter)
    options = {"metadata": METADATA, "max_retries": 0}
    batch_id = await orchestrator.submit_batch_job([chat()] * JOBS, options)
    transport = disk.adapter.session.transport
    assert isinstance(transport, InProcessTransport)
    provider = FakeProvider()

    def refuse(_: object) -> None:
        raise InvalidRequest("Provider sim: 400")

    provider.behave = refuse
    async with worker_beside(transport, {"sim": provider}, slots=JOBS):
        await orchestrator.wait_batch(batch_id)
        provider.behave = lambda _: None
        await orchestrator.retry_failed(batch_id)
        assert (await orchestrator.wait_batch(batch_id)).status == "completed"
    assert disk.written <= 3 * WEIGHT + 2 * JOBS * PER_JOB
    results = [each async for each in orchestrator.iter_results(batch_id)]
    assert [json.dumps(each.job.metadata) for each in results] == [json.dumps(METADATA)] * JOBS
