"""Submits that share calls, and calls that are made again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aiqueue.client.coalescer import SubmitCoalescer
from aiqueue.errors import AIQueueError, DuplicateJob, QueueFull, QueueUnavailable
from aiqueue.protocol import Event, Refusal, SubmitGroup, SubmitReply
from aiqueue.testing.jobs import group, submission
from tests.tools.turns import turns, until


class FakeQueue:
    """Takes submits, remembers them, and answers as told."""

    def __init__(self) -> None:
        self.calls: list[list[list[str]]] = []  #: ids by group, by call
        self.known: list[list[bool]] = []  #: which groups were marked as perhaps known, by call
        self.lingers: list[float] = []
        self.answers: list[Exception | list[Refusal | None]] = []  #: for the next calls; then everything is accepted
        self.events: list[Event] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most_at_once = 0

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        self.calls.append([[job.id for job in each.jobs] for each in groups])
        self.known.append([each.maybe_known for each in groups])
        self.lingers.append(linger_s)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        answer = self.answers.pop(0) if self.answers else [None] * len(groups)
        if isinstance(answer, Exception):
            raise answer
        return SubmitReply(answer, self.events)


@pytest.fixture
async def queue() -> FakeQueue:
    """Return a queue that accepts everything."""
    return FakeQueue()


@pytest.fixture
async def coalescer(queue: FakeQueue) -> SubmitCoalescer:
    """Return a coalescer that gives up after a minute."""
    return SubmitCoalescer(queue, lambda events: None)  # type: ignore[arg-type]


def submits(coalescer: SubmitCoalescer, *names: str) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(coalescer.submit(group(name))) for name in names]


async def test_submits_of_one_turn_leave_in_one_call(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    await asyncio.gather(*submits(coalescer, *"abcde"))
    assert queue.calls == [[["a"], ["b"], ["c"], ["d"], ["e"]]]


async def test_a_lone_submit_leaves_at_once(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    await coalescer.submit(group("a", "b"))
    assert (queue.calls, queue.known) == ([[["a", "b"]]], [[False]])


async def test_what_is_submitted_during_a_call_gathers_for_the_next_one(
    queue: FakeQueue, coalescer: SubmitCoalescer
) -> None:
    queue.gate.clear()
    first = submits(coalescer, "a")
    await until(lambda: queue.calls)
    others = []
    for name in "bcdef":
        others += submits(coalescer, name)
        await turns()
    queue.gate.set()
    await asyncio.gather(*first, *others)
    assert queue.calls == [[["a"]], [["b"], ["c"], ["d"], ["e"], ["f"]]]


async def test_calls_stay_bounded_in_size_and_number(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    queue.gate.clear()
    groups = [group(*(submission(f"{at}-{number}") for number in range(500))) for at in range(40)]
    waiting = [asyncio.create_task(coalescer.submit(each)) for each in groups]
    await until(lambda: queue.calls)
    await turns(20)
    queue.gate.set()
    await asyncio.gather(*waiting)
    assert queue.most_at_once <= 3
    assert max(sum(map(len, call)) for call in queue.calls) <= 2_000
    sent = [ids[0].split("-")[0] for call in queue.calls for ids in call]
    assert sent == [str(at) for at in range(40)], "in the order of submission"


async def test_a_group_larger_than_a_call_goes_whole(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    big = group(*(submission(f"job-{number}") for number in range(5_000)))
    await coalescer.submit(big)
    assert [len(ids) for ids in queue.calls[0]] == [5_000]


async def test_each_caller_gets_its_own_answer(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    queue.answers = [
        [
            None,
            Refusal("duplicate_job", "m", "b"),
            Refusal("queue_full", "full", retry_after_s=7.0),
            Refusal("new_kind", "odd"),
            None,
        ]
    ]
    found = await asyncio.gather(*submits(coalescer, *"abcde"), return_exceptions=True)
    assert (found[0], found[4]) == (None, None)
    assert isinstance(found[1], DuplicateJob)
    assert found[1].job_id == "b"
    assert isinstance(found[2], QueueFull)
    assert (str(found[2]), found[2].retry_after_s) == ("full", 7.0)
    assert (type(found[3]), str(found[3])) == (AIQueueError, "odd")


async def test_a_call_without_an_answer_is_made_again_with_the_same_ids_and_says_so(
    queue: FakeQueue, coalescer: SubmitCoalescer
) -> None:
    queue.answers = [QueueUnavailable("lost"), QueueUnavailable("lost")]
    await asyncio.gather(*submits(coalescer, "a", "b"))
    assert queue.calls == [[["a"], ["b"]]] * 3
    assert queue.known == [[False, False], [True, True], [True, True]]


def not_sent() -> QueueUnavailable:
    """The queue was missed before the call was made."""
    error = QueueUnavailable("no queue")
    error.was_sent = False
    return error


async def test_what_may_be_on_disk_is_sent_again_whatever_the_patience_and_what_waits_behind_it_is_given_up(
    queue: FakeQueue,
) -> None:
    coalescer = SubmitCoalescer(queue, lambda events: None, give_up_s=-1.0)  # type: ignore[arg-type]
    queue.answers = [QueueUnavailable("lost"), not_sent()]
    queue.gate.clear()
    (sent,) = submits(coalescer, "a")
    await until(lambda: bool(queue.calls))
    (behind,) = submits(coalescer, "b")
    await turns()
    queue.gate.set()
    with pytest.raises(QueueUnavailable, match="lost"):
        await behind
    assert await sent is None
    assert queue.calls == [[["a"]]] * 3
    assert queue.known == [[False], [True], [True]]


async def test_a_call_for_which_nobody_was_there_is_made_again_as_it_was(
    queue: FakeQueue, coalescer: SubmitCoalescer
) -> None:
    queue.answers = [not_sent(), not_sent()]
    await asyncio.gather(*submits(coalescer, "a"))
    assert queue.known == [[False]] * 3


async def test_a_call_for_which_nobody_is_there_is_given_up(queue: FakeQueue) -> None:
    coalescer = SubmitCoalescer(queue, lambda events: None, give_up_s=-1.0)  # type: ignore[arg-type]
    queue.answers = [not_sent()]
    found = await asyncio.gather(*submits(coalescer, "a", "b"), return_exceptions=True)
    assert [str(error) for error in found] == ["no queue"] * 2
    await coalescer.submit(group("c"))
    assert queue.calls[-1] == [["c"]]


async def test_any_other_error_goes_to_all_callers_of_the_call_and_is_not_repeated(
    queue: FakeQueue, coalescer: SubmitCoalescer
) -> None:
    queue.answers = [ZeroDivisionError("bug")]
    found = await asyncio.gather(*submits(coalescer, "a", "b"), return_exceptions=True)
    assert [type(error) for error in found] == [ZeroDivisionError] * 2
    assert len(queue.calls) == 1


async def test_a_caller_that_goes_away_takes_nobody_along(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    queue.gate.clear()
    gone, stays = submits(coalescer, "a", "b")
    await until(lambda: queue.calls)
    gone.cancel()
    await asyncio.wait([gone])
    queue.gate.set()
    await stays
    assert queue.calls == [[["a"], ["b"]]]


async def test_drain_waits_for_all_that_was_submitted(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    queue.gate.clear()
    waiting = submits(coalescer, "a")
    await turns(1)  # submitted, and not sent yet
    drain = asyncio.create_task(coalescer.drain())
    await turns(20)
    assert not drain.done()
    queue.gate.set()
    await drain
    assert queue.calls == [[["a"]]]
    await asyncio.gather(*waiting)


async def test_drain_with_nothing_to_send_ends_at_once(coalescer: SubmitCoalescer) -> None:
    await coalescer.drain()


async def test_who_waits_for_the_result_anyway_lets_the_answer_bring_it(queue: FakeQueue) -> None:
    brought: list[list[Event]] = []
    coalescer = SubmitCoalescer(queue, brought.append)  # type: ignore[arg-type]
    await coalescer.submit(group("a"), linger=True)
    await coalescer.submit(group("b"))
    assert queue.lingers[0] > 0.0
    assert queue.lingers[1] == 0.0
    assert brought == [[], []]


async def test_nobody_waits_behind_a_call_that_lingers(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    queue.gate.clear()
    lingering = asyncio.create_task(coalescer.submit(group("a"), linger=True))
    await until(lambda: queue.calls)
    other = submits(coalescer, "b")
    await until(lambda: len(queue.calls) == 2)
    queue.gate.set()
    await asyncio.gather(lingering, *other)


async def test_a_call_for_many_does_not_linger_for_one(queue: FakeQueue, coalescer: SubmitCoalescer) -> None:
    await asyncio.gather(coalescer.submit(group("a"), linger=True), coalescer.submit(group("b")))
    assert queue.lingers == [0.0]
