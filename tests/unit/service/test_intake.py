"""Idempotency keys: one job per key and body, whoever repeats what and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from aiqueue.config import LimitsConfig, RetentionConfig
from aiqueue.ids import ids_from, new_job_ids
from aiqueue.protocol import Submission, SubmitReply
from aiqueue.testing.jobs import completed, failed, group, header, settings, submission
from tests.tools.service_harness import ServiceHarness

KEY = "client-a:key-1"


def keyed(job_id: str, payload: bytes = b'{"x":1}', *, key: str = KEY, **fields: object) -> Submission:
    return submission(job_id, replace(header(), idempotency_key=key, **fields), payload)


async def send(queue: ServiceHarness, *jobs: Submission, again: bool = False) -> SubmitReply:
    """Submit jobs in one call, each in a group of its own."""
    return await queue.service.submit_and_linger([group(job, maybe_known=again) for job in jobs], 0.0)


def total(queue: ServiceHarness) -> int:
    return queue.service.stats().adapter.total_jobs


@pytest.fixture
async def small() -> AsyncIterator[ServiceHarness]:
    """Return a queue in which one job may wait."""
    made = ServiceHarness(settings().model_copy(update={"limits": LimitsConfig(max_queue_depth=1)}))
    yield made
    await made.service.close()


async def test_the_same_key_and_body_is_the_first_job(queue: ServiceHarness) -> None:
    assert await send(queue, keyed("a")) == SubmitReply([None])
    assert await send(queue, keyed("b")) == SubmitReply([None], known={0: "a"})
    assert await queue.service.get_jobs(["b"]) == [None]
    assert await queue.claim(5) == ["a"]


@pytest.mark.parametrize(
    "other",
    [keyed("b", b'{"x":2}'), keyed("b", max_retries=1), keyed("b", model="m-2"), keyed("b", delay_ms=5)],
    ids=["payload", "options", "model", "delay"],
)
async def test_the_same_key_with_another_body_is_refused(queue: ServiceHarness, other: Submission) -> None:
    await send(queue, keyed("a"))
    reply = await send(queue, other)
    assert reply.groups[0] is not None
    assert (reply.groups[0].kind, reply.groups[0].job_id) == ("idempotency_conflict", "a")
    assert reply.groups[0].message == KEY, "the client takes the scope off"
    assert total(queue) == 1


async def test_the_body_is_the_job_and_not_who_sends_it_or_in_which_batch(queue: ServiceHarness) -> None:
    await send(queue, keyed("a"))
    reply = await send(queue, keyed("b", owner="client-b", batch_id="batch"))
    assert reply.known == {0: "a"}


async def test_another_scope_is_another_key(queue: ServiceHarness) -> None:
    await send(queue, keyed("a"))
    assert await send(queue, keyed("b", key="client-b:key-1")) == SubmitReply([None])
    assert total(queue) == 2


async def test_fifty_callers_at_once_make_one_job_and_all_learn_its_id(queue: ServiceHarness) -> None:
    replies = await asyncio.gather(*(send(queue, keyed(f"job-{number}")) for number in range(50)))
    assert total(queue) == 1
    (made,) = await queue.claim(50)
    assert [reply.known.get(0, made) for reply in replies] == [made] * 50
    assert sum(not reply.known for reply in replies) == 1


async def test_a_key_is_known_after_the_end_of_its_job_and_a_restart(queue: ServiceHarness) -> None:
    await send(queue, keyed("a"))
    await queue.claim()
    await queue.exchange(completed("a"), slots=0)
    after = await queue.crashed()
    assert (await send(after, keyed("b"))).known == {0: "a"}
    assert (await after.view("a")).status == "completed"
    assert after.service.stats().adapter.queued_jobs == 0
    await after.service.close()


async def test_a_key_whose_job_never_reached_the_disk_was_not_used(queue: ServiceHarness) -> None:
    queue.memory.hold()
    lost = asyncio.create_task(send(queue, keyed("a")))
    assert await asyncio.to_thread(queue.memory.held.wait, 10.0)
    after = await queue.crashed()
    await asyncio.wait([lost])
    assert lost.exception() is not None
    assert await send(after, keyed("b")) == SubmitReply([None])
    await after.service.close()


# --- twice in one call -----------------------------------------------------------------------------------------------


async def test_a_key_twice_in_one_call_is_one_job(queue: ServiceHarness) -> None:
    reply = await send(queue, keyed("a"), keyed("b"), keyed("c", b"other"), submission("d"))
    assert reply.known == {1: "a"}
    assert [answer and answer.kind for answer in reply.groups] == [None, None, "idempotency_conflict", None]
    assert total(queue) == 2


async def test_a_key_twice_in_one_call_to_a_full_queue_is_refused_twice(small: ServiceHarness) -> None:
    await small.submit("waiting")
    reply = await send(small, keyed("a"), keyed("b"))
    assert [answer and answer.kind for answer in reply.groups] == ["queue_full", "queue_full"]
    assert reply.known == {}, "nobody may wait for a job that was not accepted"


async def test_a_key_that_was_refused_is_free_again(small: ServiceHarness) -> None:
    await small.submit("waiting")
    await send(small, keyed("a"))
    await small.claim()
    assert await send(small, keyed("b", b"another body")) == SubmitReply([None])


async def test_a_job_sent_again_with_its_key_is_itself_also_when_the_queue_is_full(small: ServiceHarness) -> None:
    await send(small, keyed("a"))
    assert await send(small, keyed("a"), again=True) == SubmitReply([None])
    assert await send(small, keyed("a"), keyed("a"), again=True) == SubmitReply([None, None])
    assert total(small) == 1


# --- sent again without a key ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{"delay_ms": 5_000}, {"expires_in_ms": 5_000}, {"delay_ms": 1, "expires_in_ms": 9_000}]
)
async def test_a_job_with_times_of_its_own_is_recognized_when_it_is_sent_again(
    queue: ServiceHarness, fields: dict[str, int]
) -> None:
    first, again, other = (submission("a", replace(header(), **fields)) for _ in range(3))
    assert await send(queue, first) == SubmitReply([None])
    queue.clock.advance(1.0)
    assert await send(queue, again, again=True) == SubmitReply([None])
    other.header.delay_ms += 1
    (refusal,) = (await send(queue, other, again=True)).groups
    assert refusal is not None
    assert refusal.kind == "duplicate_job"


# --- how long --------------------------------------------------------------------------------------------------------


async def test_a_key_is_free_when_its_time_is_over() -> None:
    config = settings().model_copy(update={"retention": RetentionConfig(idempotency_s=100.0)})
    queue = ServiceHarness(config)
    await send(queue, keyed("a"))
    await queue.claim()
    await queue.exchange(completed("a"), slots=0)
    for waited_s, known in ((99.0, {0: "a"}), (60.0, {})):
        queue.clock.advance(waited_s)
        queue.service._retention.tick()
        step = queue.service._retention._step_task
        assert step is not None
        await step
        assert (await send(queue, keyed("b"))).known == known
    await queue.service.close()


async def test_a_key_is_free_once_its_dead_letter_was_deleted(queue: ServiceHarness) -> None:
    first, second = new_job_ids(2)
    await send(queue, keyed(first, max_retries=0))
    await queue.claim(1)
    await queue.exchange(failed(first), slots=0)
    assert await queue.service.dead_letters.delete([first]) == [first]
    assert await send(queue, keyed(second, max_retries=0)) == SubmitReply([None])
    assert await queue.service.get_jobs([first]) == [None]
    assert (await queue.view(second)).status == "queued"
    assert await send(queue, keyed(first, max_retries=0)) == SubmitReply([None], known={0: second})


async def test_the_key_of_a_list_stays_though_its_first_dead_letter_was_deleted(queue: ServiceHarness) -> None:
    ids, others = (ids_from(new_job_ids(1)[0], 2) for _ in range(2))
    jobs = [keyed(ids[0], max_retries=0), submission(ids[1])]
    await queue.service.submit([group(*jobs)])
    assert await queue.claim(1) == ids[:1]
    await queue.exchange(failed(ids[0]), slots=0)
    await queue.service.dead_letters.delete([ids[0]])
    again = [keyed(others[0], max_retries=0), submission(others[1])]
    reply = await queue.service.submit_and_linger([group(*again)], 0.0)
    assert reply.known == {0: ids[0]}, "the others of the list would run, and be paid, twice"
