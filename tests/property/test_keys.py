"""A key answers with the same ids until its time is over, in whatever order its jobs end and are deleted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.config import RetentionConfig
from aiqueue.errors import DeadLetterNotFound
from aiqueue.ids import new_job_ids
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import Outcome
from aiqueue.testing.jobs import chat, completed, failed, settings
from tests.tools.client_harness import ClientHarness

HOUR_S = 3_600.0
KEY_S = 24 * HOUR_S
STEPS = ["complete", "give up", "delete a dead letter", "others end", "redrive a dead letter"]
HOURS = [HOUR_S, 11 * HOUR_S, 25 * HOUR_S]
OPTIONS = {"idempotency_key": "key", "max_retries": 0}


class Keyed:
    """Jobs that were submitted together under a key, and what a caller may count on of it."""

    def __init__(self, system: ClientHarness, client: AsyncAIQueueAdapter, jobs: int, *, as_batch: bool) -> None:
        self._system, self._client, self._as_batch = system, client, as_batch
        self._payloads = [chat(str(number)) for number in range(jobs)]
        self.ids: list[str] = []
        self._ended: dict[str, float] = {}
        self._dead: list[str] = []
        self._some_completed = False
        self._repeats: dict[str, str] = {}  # by dead letter: its redrive
        self.freed = False  #: by hand: the last that was kept of its jobs was deleted, and none of them had completed

    @property
    def _now(self) -> float:
        return self._system.queue.clock.now()

    async def submit(self) -> list[str]:
        """Submit the jobs, as the first time."""
        if not self._as_batch:
            return await self._client.submit_jobs(self._payloads, OPTIONS)
        _, ids = await self._client.submit_batch(self._payloads, {"max_retries": 0}, idempotency_key="key")
        return ids

    async def carry_out(self, step: str | float) -> None:
        """Let one thing happen, where it can."""
        queue = self._system.queue
        if isinstance(step, float):
            queue.clock.advance(step)
            queue.service._ticker.tick()
        elif step == "complete":
            self._some_completed = bool(await self._end(completed)) or self._some_completed
        elif step == "give up":
            self._dead += await self._end(failed)
        elif step == "redrive a dead letter" and self._dead:
            with suppress(DeadLetterNotFound):  # retention has taken it
                self._repeats[self._dead[-1]] = (await self._client.dead_letters.redrive([self._dead[-1]]))[0]
        elif step == "others end":
            await queue.submit(*new_job_ids(2), level=AIJobPriority.URGENT)
            self._some_completed = bool(await self._end(completed, 2)) or self._some_completed  # some may have aged
        elif step == "delete a dead letter" and self._dead:
            deleted = await queue.service.dead_letters.delete([self._dead.pop()])
            self._some_completed = self._some_completed or bool(queue.journal.jobs(deleted))  # by a redrive, maybe
            last = bool(deleted) and not queue.journal.jobs(self.ids)
            self.freed = self.freed or (last and not self._some_completed and not self._as_batch)
        await self._system.queue.forget_old()

    async def _end(self, outcome: Callable[[str], Outcome], count: int = 1) -> list[str]:
        if not self._system.queue.ready():
            return []
        claimed = await self._system.queue.claim(count)
        for job_id in claimed:
            await self._system.queue.exchange(outcome(job_id), slots=0)
            self._ended[job_id] = self._system.queue.clock.now()
        return [job_id for job_id in claimed if job_id in self.ids]

    async def check(self) -> bool:
        """Check what the key stands for; return whether it still stands for these jobs."""
        left_s = max(self._ended.get(job_id, math.inf) for job_id in self.ids) + KEY_S - self._system.queue.clock.now()
        over = self.freed or left_s < 0
        again = await self.submit()
        if again != self.ids:
            live = self._system.queue.service._engine.core.live
            assert left_s < 0 or not live.keys() & self._repeats.values(), "a redrive lives, and its key is free"
        assert (set(again) & set(self.ids) == set()) if over else (again == self.ids), f"{left_s} s are left"
        return not over


@example(jobs=3, as_batch=False, max_jobs=1, max_age_s=HOUR_S, steps=[HOUR_S, STEPS[3], STEPS[1], STEPS[2]])
@example(jobs=1, as_batch=False, max_jobs=4, max_age_s=KEY_S, steps=[STEPS[1], STEPS[4], STEPS[2]])
@example(jobs=2, as_batch=False, max_jobs=4, max_age_s=KEY_S, steps=[STEPS[1], STEPS[4], STEPS[2], STEPS[1], STEPS[2]])
@given(
    jobs=st.integers(1, 4),
    as_batch=st.booleans(),
    max_jobs=st.integers(0, 4),
    max_age_s=st.sampled_from([HOUR_S, KEY_S, 3 * KEY_S]),
    steps=st.lists(st.sampled_from([*STEPS, *HOURS]), max_size=15),
)
def test_a_key_answers_with_the_same_ids_until_its_time_is_over_whatever_is_deleted_when(
    jobs: int, as_batch: bool, max_jobs: int, max_age_s: float, steps: list[str | float]
) -> None:
    async def run() -> None:
        config = RetentionConfig(max_age_s=max_age_s, max_jobs=max_jobs, idempotency_s=KEY_S)
        async with ClientHarness(settings(models=("model-a",)).model_copy(update={"retention": config})) as system:
            keyed = Keyed(system, await system.client(), jobs, as_batch=as_batch)
            keyed.ids = await keyed.submit()
            for step in steps:
                await keyed.carry_out(step)
                if not await keyed.check():
                    return

    asyncio.run(run())
