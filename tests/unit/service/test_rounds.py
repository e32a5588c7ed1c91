"""Groups that may be known, at once: looked up together, under way together, each accepted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from aiqueue.config import LimitsConfig
from aiqueue.engine.effects import Rows
from aiqueue.errors import JournalUnavailable
from aiqueue.journal.base import JournalTaken
from aiqueue.protocol import BatchSpec, Need, SubmitGroup, SubmitReply
from aiqueue.testing.jobs import failed, final, group, header, settings, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until

CALLERS = 40


def keyed(job_id: str, key: str = "", payload: bytes = b"{}", **fields: object) -> SubmitGroup:
    """Return one job with its own key."""
    return group(submission(job_id, replace(header(), idempotency_key=key or f"key of {job_id}", **fields), payload))


def send(queue: ServiceHarness, *groups: SubmitGroup) -> asyncio.Task[SubmitReply]:
    return asyncio.create_task(queue.service.submit_and_linger(groups, 0.0))


def total(queue: ServiceHarness) -> int:
    return queue.service.stats().adapter.total_jobs


async def hold(queue: ServiceHarness) -> asyncio.Task[object]:
    """Let the disk hang with one commit under way; return the submit that waits for it."""
    queue.memory.hold()
    slow = asyncio.create_task(queue.submit("in the way"))
    await until(queue.memory.held.is_set)
    return slow


async def test_many_keys_at_once_are_under_way_together_and_share_a_commit(queue: ServiceHarness) -> None:
    queue.service._ticker.close()  # a tick may write what time it is
    slow = await hold(queue)
    calls = [send(queue, keyed(f"job-{number}")) for number in range(CALLERS)]
    await until(lambda: total(queue) == CALLERS + 1)
    before = queue.memory.commits
    queue.memory.release()
    assert await asyncio.gather(*calls) == [SubmitReply([None])] * CALLERS
    await slow
    assert queue.memory.commits - before == 2


async def test_groups_that_come_during_a_look_up_are_looked_up_together(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = queue.memory.keys
    monkeypatch.setattr(queue.memory, "keys", lambda keys: reads.append(len(keys)) or read(keys))
    await asyncio.gather(*(send(queue, keyed(f"job-{number}")) for number in range(CALLERS)))
    assert sum(reads) == CALLERS
    assert len(reads) <= 2


async def test_a_key_whose_first_commit_is_under_way_is_answered_when_that_is_on_disk(queue: ServiceHarness) -> None:
    slow = await hold(queue)
    first = send(queue, keyed("a", "key"))
    await until(lambda: total(queue) == 2)
    second, other, third = (send(queue, keyed(*which)) for which in (("b", "key"), ("c", "other"), ("d", "key")))
    await until(lambda: total(queue) == 3)
    await turns(1_000)
    assert not any(call.done() for call in (first, second, other, third))
    queue.memory.release()
    replies = await asyncio.gather(first, second, other, third)
    assert [reply.known for reply in replies] == [{}, {0: "a"}, {}, {0: "a"}]
    assert total(queue) == 3
    await slow


async def test_a_repeat_whose_first_commit_fails_for_good_is_told_so(queue: ServiceHarness) -> None:
    await hold(queue)
    first = send(queue, keyed("a", "key"))
    await until(lambda: total(queue) == 2)
    repeat = send(queue, keyed("b", "key"))
    await turns(100)
    queue.memory.break_down(JournalTaken("another queue has this journal"))
    queue.memory.release()
    for call in (first, repeat):
        with pytest.raises(JournalUnavailable):
            await call


async def test_a_repeat_goes_on_when_the_first_commit_fails_for_a_while(queue: ServiceHarness) -> None:
    slow = await hold(queue)
    first = send(queue, keyed("a", "key"))
    await until(lambda: total(queue) == 2)
    repeat = send(queue, keyed("b", "key"))
    queue.memory.fail_next(1)
    queue.memory.release()
    assert [(await first).known, (await repeat).known] == [{}, {0: "a"}]
    await slow


async def test_a_key_in_flight_at_a_crash_is_free_or_known_afterwards_as_its_job_is(queue: ServiceHarness) -> None:
    assert await send(queue, keyed("a", "key-a")) == SubmitReply([None])
    await hold(queue)
    lost = [send(queue, keyed("b", "key-b")), send(queue, keyed("c", "key-b"))]
    await until(lambda: total(queue) == 3)
    after = await queue.crashed()
    await asyncio.wait(lost)
    assert all(call.exception() is not None for call in lost)
    assert (await send(after, keyed("d", "key-a"), keyed("e", "key-b"))).known == {0: "a"}
    assert (await send(after, keyed("f", "key-b"))).known == {0: "e"}
    await after.service.close()


@pytest.mark.parametrize("again", [(False, True, True), (True, False, True), (True, True, False)])
async def test_a_first_call_and_its_repeats_at_once_are_one_job(queue: ServiceHarness, again: tuple[bool, ...]) -> None:
    slow = await hold(queue)
    calls = [send(queue, SubmitGroup([submission("a")], sent_again)) for sent_again in again]
    await turns(1_000)
    queue.memory.release()
    assert await asyncio.gather(*calls) == [SubmitReply([None])] * 3
    await slow
    assert total(queue) == 2


async def test_a_job_that_ended_before_its_own_commit_is_known_to_its_repeat(queue: ServiceHarness) -> None:
    slow = await hold(queue)
    first = asyncio.create_task(queue.submit("a"))
    await turns()
    cancel = asyncio.create_task(queue.service.cancel(["a"]))
    repeat = send(queue, group(submission("a"), maybe_known=True))
    await turns(1_000)
    queue.memory.release()
    assert (await first, (await repeat).groups) == (None, [None])
    assert [reply.status for reply in await cancel] == ["cancelled"]
    assert await queue.claim(5) == ["in the way"]
    await slow


async def test_a_need_that_ended_in_a_commit_under_way_is_known_with_its_end(queue: ServiceHarness) -> None:
    await queue.submit("parent", max_retries=0)
    await queue.claim()
    slow = await hold(queue)
    end = asyncio.create_task(queue.exchange(failed("parent", failure=final()), slots=0))
    await turns()
    child = submission("child", replace(header(batch_id="graph"), needs=(Need("parent"),), on_error="fail"))
    repeat = send(queue, SubmitGroup([child], True, BatchSpec("graph")))
    await turns(1_000)
    queue.memory.release()
    assert (await repeat).groups == [None]
    assert (await queue.view("child")).status == "failed"
    await asyncio.gather(slow, end)


async def test_a_failed_read_is_told_to_its_round_and_the_next_one_works(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> dict[str, object]:
        raise OSError("Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(queue.memory, "keys", broken)
        for call in [send(queue, keyed("a"), keyed("b")), send(queue, keyed("c"))]:
            for refusal in (await call).groups:
                assert refusal is not None
                assert refusal.kind == "record_unreadable"
                assert "OSError: Input/output error" in refusal.message
    assert await send(queue, keyed("a"), keyed("b")) == SubmitReply([None, None])
    assert total(queue) == 2


async def test_a_caller_that_goes_away_keeps_no_other_waiting(queue: ServiceHarness) -> None:
    slow = await hold(queue)
    first = send(queue, keyed("a", "key"))
    await until(lambda: total(queue) == 2)
    gone, repeat = send(queue, keyed("b", "key")), send(queue, keyed("c", "key"))
    await turns(100)
    first.cancel()
    gone.cancel()
    queue.memory.release()
    assert (await repeat).known == {0: "a"}
    await slow


@pytest.fixture
async def small() -> AsyncIterator[ServiceHarness]:
    """Return a queue in which one job may wait."""
    made = ServiceHarness(settings().model_copy(update={"limits": LimitsConfig(max_queue_depth=1)}))
    yield made
    await made.service.close()


async def test_a_key_refused_in_a_round_is_tried_by_its_next_caller(small: ServiceHarness) -> None:
    await small.submit("waiting")
    replies = await asyncio.gather(*(send(small, keyed(job_id, "key")) for job_id in "ab"))
    assert [reply.groups[0] and reply.groups[0].kind for reply in replies] == ["queue_full"] * 2
    assert [reply.known for reply in replies] == [{}, {}]


async def test_many_repeats_of_a_part_are_accepted_once_and_behind_the_opening(queue: ServiceHarness) -> None:
    slow = await hold(queue)
    opening = SubmitGroup([submission("a", header(batch_id="b"))], True, BatchSpec("b", is_open=True))
    part = SubmitGroup([submission("p", header(batch_id="b"))], True, part_of="b")
    first = send(queue, opening, part)
    repeats = [send(queue, opening, part) for _ in range(5)]
    await turns(1_000)
    queue.memory.release()
    assert await asyncio.gather(first, *repeats) == [SubmitReply([None, None])] * 6
    assert total(queue) == 3
    await slow


def rows_of(queue: ServiceHarness) -> list[Rows]:
    """Record what is committed."""
    commits: list[Rows] = []
    queue.memory.on_commit = commits.append
    return commits


async def test_an_answer_is_given_when_its_own_commit_is_on_disk(queue: ServiceHarness) -> None:
    commits = rows_of(queue)
    for number in range(5):
        await send(queue, keyed(f"job-{number}"))
        assert [row[1] for rows in commits for row in rows.jobs] == [f"job-{at}" for at in range(number + 1)]
