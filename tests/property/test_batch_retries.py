"""What is asked of a batch while ``retry_failed`` goes on, at any moment of it: the later call always wins."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall, BatchView
from aiqueue.engine import Exchange
from aiqueue.engine.batches import RETRIED
from aiqueue.engine.engine import BatchRow
from aiqueue.errors import BatchNotFound, ValidationError
from aiqueue.journal.base import PartRow, StoredJob
from aiqueue.protocol import BatchSpec, Failure, Need, SubmitGroup, decode_header
from aiqueue.testing.jobs import POOL, completed, failed, final, header, retryable, submission
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.service_harness import ServiceHarness

Action = Callable[[], Coroutine[Any, Any, object]]


class InterruptedJournal(MemoryJournal):
    """Lets the event loop do something before or after a read that another thread makes."""

    def __init__(self) -> None:
        super().__init__()
        self._actions: dict[int, Action] = {}
        self._loop = asyncio.get_running_loop()
        self._moments = 0
        self._is_inside = False  # reads of the action itself are no moments

    def interrupt(self, actions: dict[int, Action]) -> None:
        """Do something at some moments from now on: there is one before and one after each read."""
        self._actions, self._moments = actions, 0

    def _moment(self) -> None:
        if self._is_inside or threading.current_thread() is threading.main_thread():
            return
        action = self._actions.pop(self._moments, None)
        self._moments += 1
        if action is not None:
            self._is_inside = True
            asyncio.run_coroutine_threadsafe(action(), self._loop).result(30)
            self._is_inside = False

    def parts(self, number: int) -> list[PartRow]:
        """As the journal's, with moments before and after."""
        self._moment()
        found = super().parts(number)
        self._moment()
        return found

    def batch_ends(self, number: int, *, after: int, limit: int) -> list[int]:
        """As the journal's, with moments before and after."""
        self._moment()
        found = super().batch_ends(number, after=after, limit=limit)
        self._moment()
        return found

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True) -> list[StoredJob]:
        """As the journal's, with moments before and after."""
        self._moment()
        found = super().by_seq(seqs, with_payload=with_payload, with_result=with_result)
        self._moment()
        return found

    def batch(self, batch_id: str) -> BatchRow | None:
        """As the journal's, with moments before and after."""
        self._moment()
        found = super().batch(batch_id)
        self._moment()
        return found


class Batch:
    """A batch that failed for the most part, and what is asked of it while it is retried."""

    def __init__(self, queue: ServiceHarness) -> None:
        self.queue, self.desk = queue, queue.service.batches
        self.running: list[str] = []
        self.asked: list[str] = []  #: what stops, retries or pauses it, in the order of the answers
        self.deleted: set[str] = set()
        self.retries: list[asyncio.Task[BatchView]] = []
        self.tokens: list[str] = []  #: of the retries

    async def submit(self, count: int, running: int, failure: Failure, *, chain: bool) -> None:
        """Let ``count`` jobs fail while others run on. One failure more stops the batch."""
        names = [f"job-{number}" for number in range(count + running)]
        one = header(batch_id="b", max_retries=0)
        jobs = [submission(name, replace(one, index=at)) for at, name in enumerate(names)]
        for before, job in pairwise(jobs[:count] if chain else ()):
            job.header.needs, job.header.on_error = (Need(before.id),), "fail"
        spec = BatchSpec("b", max_failed_ratio=min(1.0, (count + 0.5) / len(jobs)))
        assert await self.queue.service.submit([SubmitGroup(jobs, batch=spec)]) == [None]
        claimed = await self.queue.claim(len(names))
        self.running = names[count:]
        outcomes = [failed(name, failure=failure) for name in claimed if name not in self.running]
        await self.queue.exchange(*outcomes, slots=0)

    async def steer(self, action: str) -> None:
        """Make a call that is answered at once, or refused."""
        with contextlib.suppress(BatchNotFound, ValidationError):
            await self.desk.call(BatchCall("b", action))
            self.asked.append(action)

    async def retry(self, token: str = "") -> None:
        """Ask for a retry, whose answer may come only when all is over."""
        number = len(self.retries)
        self.asked.append(f"retry {number}")
        self.tokens.append(token or f"token {number}")
        call = BatchCall("b", "retry_failed", token=self.tokens[number])
        self.retries.append(asyncio.ensure_future(self.desk.call(call)))
        await asyncio.sleep(0)

    async def repeat(self) -> None:
        """Send the first retry again, as a client does that has heard no answer."""
        await self.retry(self.tokens[0])

    async def leave(self) -> None:
        """Let the caller of the last retry go away."""
        self.retries[-1].cancel()

    async def delete(self) -> None:
        """Delete the first two jobs if they are dead letters."""
        self.deleted.update(await self.queue.service.dead_letters.delete(["job-0", "job-1"]))

    async def fail(self) -> None:
        """Let a running job fail."""
        group = self.queue.service._engine.core.groups.live.get("b")
        if self.running and group is not None and group.stored.phase == "running":
            outcome = failed(self.running.pop(), failure=final())
            self.queue.service._apply(Exchange("worker-1", POOL, 0, [outcome]))
            if group.stored.reason:
                self.asked.append("cancel")  # by its own limit

    def action(self, name: str) -> Action:
        """Return what is to be done at some moment."""
        others = ("retry", "repeat", "leave", "delete", "fail")
        return getattr(self, name) if name in others else lambda: self.steer(name)

    async def end_of_retries(self) -> None:
        """Wait for the answers. A retry that was refused was not asked for, and a repeat of one asks for nothing."""
        answers: dict[str, BatchView | BaseException] = {}
        under_way = self.desk.retries._under_way  # also of callers that went away
        while going := [*(task for task in self.retries if not task.done()), *(run.task for run in under_way.values())]:
            await asyncio.wait(going)
        replies = await asyncio.gather(*self.retries, return_exceptions=True)
        for number, (token, reply) in enumerate(zip(self.tokens, replies, strict=True)):
            is_refused = isinstance(reply, ValidationError)
            assert is_refused or not isinstance(reply, Exception), reply
            if is_refused or token in answers:
                self.asked.remove(f"retry {number}")
            if not is_refused:
                first = answers.setdefault(token, reply)
                if isinstance(first, BatchView) and isinstance(reply, BatchView):
                    assert first.changed == reply.changed, "a repeat has another answer"

    async def replaced(self) -> list[str]:
        """Return the jobs that have a successor, once for each one they have."""
        number, journal = (await self.desk._find("b")).number, self.queue.journal
        parts = [part for part in journal.parts(number) if part.first_index == RETRIED]
        headers = [row for part in parts for row in journal.headers(from_seq=part.first_seq, count=part.jobs)]
        return [decode_header(body).redriven_from for _, body in headers]

    async def work(self) -> list[str]:
        """Complete all that a worker is given; return which jobs that were."""
        done: list[str] = []
        while claims := self.queue.service._apply(Exchange("worker-1", POOL, 4, []))[0].claims:
            outcomes = [completed(job.id, job.attempt) for job in claims]
            done += [outcome.job_id for outcome in outcomes]
            await self.queue.exchange(*outcomes, slots=0)
        return done

    def last(self, *actions: str) -> str:
        """Return which of these was asked for last."""
        return next((each for each in reversed(self.asked) if each.split()[0] in actions), "")


async def check_interrupted_retry(
    count: int, running: int, failure: Failure, at_once: int, plan: dict[int, str], *, chain: bool
) -> None:
    journal = InterruptedJournal()
    queue = ServiceHarness(journal=journal)
    batch = Batch(queue)
    await batch.submit(count, running, failure, chain=chain)
    queue.service.batches.retries.at_once = at_once
    journal.interrupt({moment: batch.action(name) for moment, name in plan.items()})
    await batch.retry()
    await batch.end_of_retries()
    journal.interrupt({})
    replaced = await batch.replaced()
    assert len(replaced) == len(set(replaced)), "a job has two successors"
    assert not batch.deleted & set(replaced), "a dead letter runs whose deletion was answered"
    if batch.last("cancel", "retry") == "cancel":
        assert not await batch.work(), "a job runs of a batch whose cancel was answered"
    elif batch.last("pause", "resume") == "pause":
        assert not await batch.work(), "a job runs of a batch whose pause was answered"
        await batch.steer("resume")
    if batch.running:
        await queue.exchange(*map(completed, batch.running), slots=0)
    await batch.work()
    view = await batch.desk.call(BatchCall("b"))
    assert (sum(view.ended.values()), view.waiting, view.processing) == (view.total, 0, 0)
    assert view.total == count + running
    if not {"cancel", "fail"} & {*batch.asked, *plan.values()}:
        assert len(replaced) + len(batch.deleted) >= count, "a failed job was not retried"
    await queue.service.close()


@settings(max_examples=300)
@given(
    count=st.integers(1, 4),
    running=st.integers(0, 2),
    failure=st.sampled_from([final(), retryable()]),
    at_once=st.integers(1, 2),
    plan=st.dictionaries(
        st.integers(0, 24),
        st.sampled_from(["cancel", "pause", "resume", "drop", "retry", "repeat", "leave", "delete", "fail"]),
        max_size=3,
    ),
    chain=st.booleans(),
)
def test_a_call_that_comes_while_a_batch_is_retried_is_not_undone_by_the_retry(
    count: int, running: int, failure: Failure, at_once: int, plan: dict[int, str], chain: bool
) -> None:
    checked = check_interrupted_retry(count, running, failure, at_once, plan, chain=chain)
    asyncio.run(asyncio.wait_for(checked, 120))
