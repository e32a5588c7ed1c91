"""What a client asks again, since an answer was lost, is answered as if the first answer had come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aiqueue.client import calls
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.calls import CALL_S, QueueCalls
from aiqueue.errors import JobNotFound, QueueNotRunning, QueueUnavailable
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.protocol import CancelReply
from aiqueue.service.answering import AnsweredCalls
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.odd_rows import spoil
from tests.unit.client.test_dead_letters import dead_letter


class Answers(AnsweredCalls):
    """The queue's side."""

    def __init__(self, service: QueueService) -> None:
        self._service = service

    def _open(self) -> QueueService:
        return self._service


class Calls(QueueCalls):
    """Calls that arrive, of which the next answers to those named in ``lost`` do not."""

    def __init__(self, service: QueueService) -> None:
        super().__init__()
        self._answers = Answers(service)
        self.lost: list[str] = []

    async def _carry(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        answer = await getattr(self._answers, method)(*args)
        if method in self.lost:
            self.lost.remove(method)
            raise QueueUnavailable(f"the answer of {method} was lost")
        return answer


class Lossy(InProcessTransport):
    """Cancels and deletes through such calls."""

    def __init__(self, service: QueueService) -> None:
        super().__init__(service)
        self.carried = Calls(service)
        self.lost = self.carried.lost

    async def cancel(self, ids: Sequence[str]) -> list[CancelReply]:
        return await self.carried.cancel(ids)

    async def delete_dead_letters(self, ids: Sequence[str]) -> list[str]:
        return await self.carried.delete_dead_letters(ids)


@pytest.fixture
def lossy(system: ClientHarness, monkeypatch: pytest.MonkeyPatch) -> Lossy:
    """Return a transport that asks again at once."""
    monkeypatch.setattr(calls, "_FIRST_WAIT_S", 0.0)  # and so all waits behind it
    return Lossy(system.queue.service)


@pytest.fixture
async def client(system: ClientHarness, lossy: Lossy) -> AsyncAIQueueAdapter:
    return await system.client(lossy)


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_delete_says_what_is_gone_whatever_answers_were_lost(
    lost: int, system: ClientHarness, client: AsyncAIQueueAdapter, lossy: Lossy
) -> None:
    await system.work()
    dead = [await dead_letter(system, client, max_retries=0) for _ in range(3)]
    done = await client.submit_job(chat())
    await client.wait(done)
    gone_before = dead.pop()
    assert await client.dead_letters.delete([gone_before]) == [gone_before]
    lossy.lost += ["delete_dead_letters"] * lost
    assert await client.dead_letters.delete([*dead, done, gone_before]) == dead
    assert not lossy.lost
    assert await client.dead_letters.delete(dead) == []


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_damaged_row_beside_what_the_lost_call_deleted_hides_nothing(
    lost: int, system: ClientHarness, client: AsyncAIQueueAdapter, lossy: Lossy
) -> None:
    await system.work()
    good, damaged = [await dead_letter(system, client, max_retries=0) for _ in range(2)]
    spoil(system.queue.memory, {("jobs", damaged)})
    lossy.lost += ["delete_dead_letters"] * lost
    assert await client.dead_letters.delete([good, damaged]) == [good]


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_dead_letter_that_stays_for_another_job_is_deleted_all_the_same(
    lost: int, system: ClientHarness, client: AsyncAIQueueAdapter, lossy: Lossy
) -> None:
    await system.work()
    dead = await dead_letter(system, client, max_retries=0)
    orchestrator = AsyncAIJobOrchestrator(client)
    await orchestrator.fan_in_job(
        [dead, await client.submit_job(chat(), {"delay": 1_000_000})], chat("{{results}}"), on_error="include"
    )
    lossy.lost += ["delete_dead_letters"] * lost
    assert await client.dead_letters.delete([dead]) == [dead]
    info = await client.get_job_status(dead)
    assert info is not None
    assert info.status == "failed"


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_cancel_says_that_it_has_cancelled_whatever_answers_were_lost(
    lost: int, system: ClientHarness, client: AsyncAIQueueAdapter, lossy: Lossy
) -> None:
    waiting = await client.submit_job(chat(), {"delay": 1_000_000})
    lossy.lost += ["cancel"] * lost
    assert await client.cancel_job(waiting)
    assert not lossy.lost
    assert not await client.cancel_job(waiting)
    lossy.lost += ["cancel"] * lost
    with pytest.raises(JobNotFound):
        await client.cancel_job("nobody")


@pytest.mark.parametrize("method", ["cancel", "delete_dead_letters"])
async def test_a_queue_that_does_not_run_is_not_asked_again(
    method: str, lossy: Lossy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def refuse(name: str, *args: object, limit_s: float = CALL_S) -> Any:
        asked.append(name)
        raise QueueNotRunning("no queue is running")

    monkeypatch.setattr(lossy.carried, "_call", refuse)
    with pytest.raises(QueueNotRunning):
        await getattr(lossy.carried, method)(["a"])
    assert len(asked) == 1
