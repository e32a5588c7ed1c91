"""Redrives, retries of the batch and deletes of the same dead letters, in any order and at any moment of each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import AIQueueError, DeadLetterNotFound, ValidationError
from aiqueue.journal.base import NO_LIMIT, StoredJob, StoredKey
from aiqueue.protocol import BatchSpec, SubmitGroup, decode_header
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import failed, group, header, submission
from tests.property.test_batch_retries import InterruptedJournal
from tests.tools.service_harness import ServiceHarness


class Interrupted(InterruptedJournal):
    """Has moments at the reads of a redrive and a delete too."""

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        """As the journal's, with moments before and after."""
        self._moment()
        found = super().jobs(ids, with_payload=with_payload, with_result=with_result, limit=limit)
        self._moment()
        return found

    def keys(self, keys: Sequence[str]) -> dict[str, StoredKey]:
        """As the journal's, with moments before and after."""
        self._moment()
        found = super().keys(keys)
        self._moment()
        return found


class DeadLettersOfABatch:
    """Two dead letters of one batch; no worker runs, so all that is accepted for them stays live.

    With ``keyed`` they are a list of one and one of two, each with a key, and not a batch.
    """

    def __init__(self, *, keyed: bool = False) -> None:
        self._keyed = keyed
        self.journal = Interrupted()
        self.queue = ServiceHarness(journal=self.journal)
        self.client = AsyncAIQueueAdapter(InProcessTransport(self.queue.service))
        self.under_way: list[asyncio.Task[object]] = []
        self.redriven: dict[str, set[str]] = {"a": set(), "b": set()}  #: ids that redrives were answered with
        self.before_delete: dict[str, set[str]] = {}  #: by deleted job: its successors at the first answer
        self.done = Counter[str]()  #: calls that were answered with success

    async def begin(self) -> None:
        """Let the jobs fail."""
        await self.client.start()
        one = header(batch_id="b", max_retries=0)
        jobs = [submission(name, replace(one, index=at)) for at, name in enumerate("ab")]
        if self._keyed:
            assert await self.submit_again("a", "b") == ["", ""]
        else:
            assert await self.queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("b"))]) == [None]
        await self.queue.exchange(*map(failed, await self.queue.claim(4)), slots=0)

    async def submit_again(self, alone: str, first: str) -> list[str]:
        """Submit what has the keys under these ids; return the ids that each was answered with, if it is not new."""
        plain = header(max_retries=0)
        groups = [
            group(submission(alone, replace(plain, idempotency_key="key:alone"))),
            group(submission(first, replace(plain, idempotency_key="key:list")), submission(f"{first}2", plain)),
        ]
        reply = await self.queue.service.submit_and_linger(groups, 0.0)
        assert reply.groups == [None, None]
        return [reply.known.get(at, "") for at in range(2)]

    async def end(self) -> None:
        """Wait for the answers."""
        while going := [task for task in self.under_way if not task.done()]:
            await asyncio.wait(going)
        for task in self.under_way:
            if error := task.exception():
                raise error
        self.journal.interrupt({})

    async def close(self) -> None:
        await self.client.stop()
        await self.queue.service.close()

    async def call(self, name: str) -> None:
        """Begin a call; a redrive of both jobs is two calls, as each may fail alone."""
        calls: Sequence[Coroutine[Any, Any, object]] = (
            [self._redrive("a"), self._redrive("b")] if name == "redrive" else [getattr(self, f"_{name}")()]
        )
        self.under_way += map(asyncio.ensure_future, calls)
        await asyncio.sleep(0)

    async def _redrive(self, job_id: str) -> None:
        try:
            self.redriven[job_id].update(await self.client.dead_letters.redrive([job_id]))
            self.done["redrive"] += 1
        except DeadLetterNotFound:
            self.done["refused"] += 1

    async def _retry(self) -> None:
        try:
            await self.queue.service.batches.call(BatchCall("b", "retry_failed"))
            self.done["retry"] += 1
        except ValidationError:
            self.done["refused"] += 1

    async def _delete(self) -> None:
        try:
            deleted = await self.client.dead_letters.delete(["a", "b", "b2"] if self._keyed else ["a"])
        except AIQueueError:
            return
        for job_id in deleted:
            self.before_delete.setdefault(job_id, self.successors().get(job_id, set()))

    def successors(self) -> dict[str, set[str]]:
        """Return the live jobs by the dead letter that they repeat."""
        found: dict[str, set[str]] = {"a": set(), "b": set()}
        for job_id, row in self.journal.jobs(self.queue.service._engine.core.live).items():
            found[decode_header(row.header).redriven_from].add(job_id)
        return found


async def check(first: Sequence[str], plan: dict[int, str], then: Sequence[str]) -> None:
    """Make the calls of ``first`` in a row, those of ``plan`` at moments of a further one, and those of ``then``."""
    jobs = DeadLettersOfABatch()
    await jobs.begin()
    for name in first:
        await jobs.call(name)
        await asyncio.wait(jobs.under_way)
    at_moments = {moment: (lambda name=name: jobs.call(name)) for moment, name in plan.items()}
    jobs.journal.interrupt(at_moments)
    for name in then:
        await jobs.call(name)
    await jobs.end()
    ends = jobs.successors().items()
    await jobs.close()
    for job_id, successors in ends:
        assert len(successors) <= 1, f"{job_id} has two live successors"
        assert len(jobs.redriven[job_id]) <= 1, f"redrives of {job_id} have two answers"
        assert successors >= jobs.redriven[job_id], "a redrive was answered with a job that is not there"
        if job_id in jobs.before_delete:
            assert successors <= jobs.before_delete[job_id], f"{job_id} runs again though its deletion was answered"
        else:
            assert successors or not jobs.done["retry"], f"{job_id} was left out"


_CALLS = st.sampled_from(["redrive", "retry", "delete"])


@settings(max_examples=300, deadline=None)
@given(
    first=st.lists(_CALLS, max_size=3),
    plan=st.dictionaries(st.integers(0, 30), _CALLS, max_size=3),
    then=st.lists(_CALLS, min_size=1, max_size=3),
)
def test_a_dead_letter_has_one_live_successor_at_most_and_none_after_its_deletion_was_answered(
    first: list[str], plan: dict[int, str], then: list[str]
) -> None:
    asyncio.run(asyncio.wait_for(check(first, plan, then), 20))


async def check_keys(first: Sequence[str], plan: dict[int, str], then: Sequence[str]) -> None:
    """As ``check``, of jobs with keys; then send the same jobs again under other ids."""
    jobs = DeadLettersOfABatch(keyed=True)
    await jobs.begin()
    for name in first:
        await jobs.call(name)
        await asyncio.wait(jobs.under_way)
    jobs.journal.interrupt({moment: (lambda name=name: jobs.call(name)) for moment, name in plan.items()})
    for name in then:
        await jobs.call(name)
    await jobs.end()
    repeated = [bool(ids) for ids in jobs.successors().values()]
    known = await jobs.submit_again("c", "d")
    deleted = jobs.before_delete.keys()
    await jobs.close()
    assert known[0] == ("a" if repeated[0] or "a" not in deleted else ""), "the key of a job"
    assert known[1] == ("b" if repeated[1] or not {"b", "b2"} <= deleted else ""), "the key of a list"


@settings(max_examples=150, deadline=None)
@given(
    first=st.lists(st.sampled_from(["redrive", "delete"]), max_size=3),
    plan=st.dictionaries(st.integers(0, 30), st.sampled_from(["redrive", "delete"]), max_size=3),
    then=st.lists(st.sampled_from(["redrive", "delete"]), min_size=1, max_size=3),
)
def test_the_key_of_a_dead_letter_is_free_after_its_deletion_only_if_no_redrive_of_it_lives(
    first: list[str], plan: dict[int, str], then: list[str]
) -> None:
    asyncio.run(asyncio.wait_for(check_keys(first, plan, then), 20))
