"""Which jobs retention keeps when there are more than ``max_jobs``, in any mix of ends, redrives and next tries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from msgspec.structs import replace

from aiqueue.config import RetentionConfig
from aiqueue.engine.successors import successor_of
from aiqueue.ids import id_of, next_try_of
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import completed, failed, final, group, header, settings, submission
from tests.tools.gates import never_closed
from tests.tools.service_harness import ServiceHarness

_LAST = 10.0**12  # seconds, later than any end


class Few:
    """A queue that keeps few ended jobs, and the rule that says which."""

    def __init__(self, max_jobs: int) -> None:
        config = settings().model_copy(update={"retention": RetentionConfig(max_jobs=max_jobs)})
        self.queue, self._max_jobs = ServiceHarness(never_closed(config)), max_jobs
        self.needed: set[str] = set()
        self.queue.service._retention._is_needed = self.needed.__contains__
        self._count = 0

    def ended(self) -> list[str]:
        """Return the ended jobs that are kept, in the order of their ends."""
        return [row.id for row in self.queue.journal.ended(after=(0.0, 0), before=_LAST, limit=1_000)]

    async def _run(self, sent: SubmitGroup, end: str) -> None:
        assert await self.queue.service.submit([sent]) == [None]
        (job_id,) = await self.queue.claim(4)
        ways = {"completed": completed(job_id), "dead": failed(job_id), "failed": failed(job_id, failure=final())}
        await self.queue.exchange(ways[end], slots=0)
        self.queue.clock.advance(0.5)

    def _in_batch(self, job_id: str) -> SubmitGroup:
        self._count += 1
        one = header(max_retries=0, batch_id=f"b{self._count}")
        return SubmitGroup([submission(job_id, one)], True, batch=BatchSpec(one.batch_id))

    async def new(self, end: str, _: int) -> None:
        """Run a job that nothing else is about."""
        self._count += 1
        await self._run(self._in_batch(id_of("row", str(self._count))), end)

    async def next_try(self, end: str, at: int) -> None:
        """Run what ``map`` puts in the place of a failed job."""
        states = self.queue.journal.states(self.ended())
        tries = [next_try_of(job_id) for job_id, state in states.items() if state != "completed"]
        if new := [job_id for job_id in tries if not self.queue.journal.states([job_id])]:
            await self._run(self._in_batch(new[at % len(new)]), end)

    async def redrive(self, end: str, at: int) -> None:
        """Run what repeats a dead letter."""
        states = self.queue.journal.states(self.ended())
        if dead := [job_id for job_id, state in states.items() if state == "dead_letter"]:
            self._count += 1
            repeated = dead[at % len(dead)]
            keyed = replace(header(max_retries=0), redriven_from=repeated, idempotency_key=f"k{self._count}")
            await self._run(group(submission(id_of("redrive", str(self._count)), keyed)), end)

    async def need(self, _: str, at: int) -> None:
        """Let a live job begin, or cease, to need one."""
        if ended := self.ended():
            self.needed ^= {ended[at % len(ended)]}

    async def forget(self, *_: object) -> None:
        """Let retention make a pass; see that it keeps the last jobs, and of the others what is kept for a reason."""
        ended = self.ended()
        beyond = max(0, len(ended) - self._max_jobs)
        kept = [*filter(self._has_reason, ended[:beyond]), *ended[beyond:]]
        await self.queue.forget_old()
        assert self.ended() == kept, f"of {ended}, with {self._max_jobs} to keep"

    def _has_reason(self, job_id: str) -> bool:
        job = self.queue.journal.jobs([job_id])[job_id]
        heirs = self.queue.journal.states([successor_of(job.progress), next_try_of(job_id)])
        return job_id in self.needed or (job.state != "completed" and bool(heirs))


async def _check(max_jobs: int, acts: Sequence[tuple[str, str, int]]) -> None:
    few = Few(max_jobs)
    for name, end, at in acts:
        await getattr(few, name)(end, at)
    few.needed.clear()
    for _ in range(len(few.ended()) + 1):  # each pass may free what was kept for what it deletes
        await few.forget()
    states = few.queue.journal.states(few.ended())
    alone = [job_id for job_id in states if not few._has_reason(job_id)]
    assert len(alone) <= max_jobs
    await few.queue.service.close()


_TRIES = [("new", "failed", 0)] * 4 + [("next_try", "completed", 0)] * 4
_REDRIVES = [("new", "dead", 0)] * 3 + [("redrive", "completed", at) for at in range(3)]
_NEEDED = [("new", "completed", 0), ("new", "completed", 0), ("need", "", 0), ("new", "completed", 0)]
_ACTS = st.tuples(
    st.sampled_from(["new", "next_try", "redrive", "need", "forget"]),
    st.sampled_from(["completed", "dead", "failed"]),
    st.integers(0, 9),
)


@hypothesis_settings(max_examples=100, deadline=None)
@given(max_jobs=st.integers(0, 5), acts=st.lists(_ACTS, max_size=24))
@example(max_jobs=4, acts=_TRIES)
@example(max_jobs=3, acts=_REDRIVES)
@example(max_jobs=2, acts=_NEEDED)
def test_the_last_max_jobs_are_kept_and_of_the_others_those_that_are_kept_for_another(
    max_jobs: int, acts: list[tuple[str, str, int]]
) -> None:
    asyncio.run(asyncio.wait_for(_check(max_jobs, acts), 120))
