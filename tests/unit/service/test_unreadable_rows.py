"""One row of the journal that can't be read: it hurts its own job, and no job that is read together with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from msgspec.structs import replace

from aiqueue.journal.base import NO_LIMIT
from aiqueue.protocol import BatchSpec, ExchangeCall, ExchangeReply, Need, SubmitGroup
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.in_process import InProcessTransport, worker_beside
from aiqueue.testing.jobs import POOL, chat, completed, group, header, settings, submission
from aiqueue.worker import loop as loop_module
from tests.tools.broken_journal import BrokenJournal
from tests.tools.fake_provider import FakeProvider
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until


class System:
    """A queue on such a journal, and its worker."""

    def __init__(self, *, cache_bytes: int = 0) -> None:
        self.journal = BrokenJournal()
        self.queue = ServiceHarness(settings(retry_s=0.0, cache_bytes=cache_bytes), self.journal)
        self.provider = FakeProvider()
        self.transport = InProcessTransport(self.queue.service)

    @property
    def service(self) -> QueueService:
        return self.queue.service

    async def run(self, *ids: str, slots: int = 4) -> list[str]:
        """Let a worker run until these jobs have ended; return how. All can be read afterwards."""
        live = self.service._engine.core.live
        async with worker_beside(self.transport, {"sim": self.provider}, slots=slots):
            try:
                await until(lambda: not live.keys() & set(ids))
            finally:
                self.journal.broken = set()  # else a worker that is stopped waits for the answer
        return [(await self.queue.view(job_id)).status for job_id in ids]

    def runs(self) -> list[str]:
        return [call.job_id for call in self.provider.calls]


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker ask again after an error sooner than it does for a queue that restarts."""
    monkeypatch.setattr(loop_module, "_RETRY_S", 0.0)


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Return a system whose worker is not started yet."""
    made = System()
    yield made
    await made.service.close()


@pytest.mark.parametrize("size", [10, 5 * 2**20])
@pytest.mark.parametrize("slots", [1, 4])
async def test_a_payload_that_can_not_be_read_fails_its_own_job_and_no_other(
    system: System, slots: int, size: int
) -> None:
    good = [f"good-{number}" for number in range(8)]
    payload = msgspec.json.encode(chat("x" * size))
    jobs = [submission(job_id, header(), payload) for job_id in (*good[:3], "bad", *good[3:])]
    await system.service.submit([group(*jobs)])
    system.journal.broken = {"bad"}
    end = "completed" if size < 2**20 else "failed"  # the answer repeats the prompt, and is too large then
    assert await system.run("bad", *good, slots=slots) == ["dead_letter", *[end] * 8]
    assert sorted(system.runs()) == good, "each once, and the broken one never"
    failure = (await system.queue.view("bad")).failure
    assert failure is not None
    assert failure.kind == "payload_unreadable"
    assert "job bad" in failure.message
    assert "database disk image is malformed" in failure.message
    assert "submit" in failure.message, "it says what to do"
    assert (await system.queue.view("bad")).attempt == 4, "its retries, and no more"


async def test_jobs_whose_payloads_are_in_memory_go_out_beside_one_that_can_not_be_read() -> None:
    system = System(cache_bytes=2**20)
    await system.queue.submit("bad")
    system.service._workers.payloads.drop([1])
    await system.queue.submit("good")
    system.journal.broken = {"bad"}
    assert await system.run("bad", "good") == ["dead_letter", "completed"]
    await system.service.close()


async def test_the_only_job_that_is_left_ends_though_its_payload_can_not_be_read(system: System) -> None:
    await system.queue.submit("good")
    assert await system.run("good") == ["completed"]
    await system.queue.submit("bad")
    system.journal.broken = {"bad"}
    assert await system.run("bad") == ["dead_letter"]


async def test_a_payload_that_can_be_read_again_at_the_next_try_runs(system: System) -> None:
    await system.queue.submit("a", "b")
    system.journal.broken = {"a"}
    live = system.service._engine.core.live
    async with worker_beside(system.transport, {"sim": system.provider}, slots=4):
        await until(lambda: system.journal.reads > 3)
        system.journal.broken = set()
        await until(lambda: not live)
    assert [(await system.queue.view(job_id)).status for job_id in "ab"] == ["completed"] * 2


@pytest.mark.parametrize("jobs", [1, 5])
async def test_a_disk_that_reads_nothing_fails_no_job_and_all_run_when_it_is_back(system: System, jobs: int) -> None:
    ids = [f"job-{number}" for number in range(jobs)]
    await system.queue.submit(*ids)
    system.journal.dead = True
    live = system.service._engine.core.live
    async with worker_beside(system.transport, {"sim": system.provider}, slots=8):
        await until(lambda: system.journal.reads > 40)
        assert sorted(live) == ids
        assert {job.attempt for job in live.values()} == {1}
        system.journal.dead = False
        await until(lambda: not live)
    assert sorted(system.runs()) == ids


async def test_a_result_that_can_not_be_read_fails_the_job_that_needs_it_and_no_other(system: System) -> None:
    await _needing(system, "parent", "child")
    await system.queue.submit("good")
    system.journal.broken = {"parent"}
    assert await system.run("child", "good") == ["dead_letter", "completed"]
    failure = (await system.queue.view("child")).failure
    assert failure is not None
    assert failure.kind == "payload_unreadable"
    assert "job parent, which it needs" in failure.message


async def test_a_row_that_can_not_be_decoded_fails_the_job_that_needs_it_and_no_other(system: System) -> None:
    await _needing(system, "parent", "child")
    await system.queue.submit("good")
    seq = system.journal._disk.seqs["parent"]
    good = system.journal._disk.states[seq]
    system.journal._disk.states[seq] = ("completed", b"\xc1 no progress")
    live = system.service._engine.core.live
    async with worker_beside(system.transport, {"sim": system.provider}, slots=4):
        try:
            await until(lambda: not live)
        finally:
            system.journal._disk.states[seq] = good
    views = [await system.queue.view(job_id) for job_id in ("child", "good")]
    assert [view.status for view in views] == ["dead_letter", "completed"]


async def _needing(system: System, parent: str, child: str) -> None:
    """Let ``parent`` complete, and ``child`` wait for a worker."""
    chain = header(batch_id="chain")
    steps = [
        submission(parent, replace(chain, index=0)),
        submission(child, replace(chain, index=1, needs=(Need(parent, ("previous",)),), on_error="fail")),
    ]
    await system.service.submit([SubmitGroup(steps, batch=BatchSpec("chain", kind="chain"))])
    (claim,) = (await system.service.exchange(ExchangeCall("w0", "pool", 1, number=1))).claims
    assert claim.job_id == parent
    reply: ExchangeReply = await system.service.exchange(ExchangeCall("w0", "pool", 0, [completed(parent)], number=2))
    assert not reply.claims
    await turns()


class SlowDisk(BrokenJournal):
    """The first read of payloads hangs until ``go`` is set, and fails, as do all later ones of these jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.hangs = threading.Event()

    def payloads(self, seqs: Sequence[int], *, limit: int = NO_LIMIT) -> dict[int, bytes]:
        if not self.hangs.is_set():
            self.hangs.set()
            self.go.wait(60.0)
            self.broken = set(self._ids_of(seqs))
        return super().payloads(seqs, limit=limit)


async def test_a_read_that_fails_late_leaves_an_attempt_alone_that_a_later_call_was_given() -> None:
    disk = SlowDisk()
    queue = ServiceHarness(settings(cache_bytes=0), disk)
    await queue.submit("job", "other")
    late = asyncio.create_task(queue.service.exchange(ExchangeCall("worker-1", POOL, 1, number=1)))
    await asyncio.to_thread(disk.hangs.wait, 60.0)
    again = await queue.service.exchange(ExchangeCall("worker-1", POOL, 1, running=[], number=2))
    assert [(job.job_id, job.attempt) for job in again.claims] == [("job", 1)]
    disk.go.set()
    answer = await late
    assert (answer.claims, answer.more) == ([], True)
    disk.broken = set()
    await queue.service.exchange(ExchangeCall("worker-1", POOL, 0, [completed("job")], number=3))
    assert (await queue.view("job")).status == "completed"
    await queue.service.close()
