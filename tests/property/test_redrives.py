"""Redrives, retries of the batch and deletes of the same dead letters, in any order and at any moment of each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.engine import TERMINAL
from aiqueue.engine.effects import Effects, Rows
from aiqueue.errors import AIQueueError, DeadLetterNotFound, ValidationError
from aiqueue.journal.base import NO_LIMIT, StoredJob, StoredKey
from aiqueue.protocol import BatchSpec, SubmitGroup, decode_header
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import completed, failed, group, header, submission
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
    asyncio.run(asyncio.wait_for(check(first, plan, then), 120))


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
    asyncio.run(asyncio.wait_for(check_keys(first, plan, then), 120))


class Chain:
    """A job with a key and its redrives, each of the one before; all that has ended may be deleted, forgotten, damaged.

    Job 0 has the key. Only the last one that is a dead letter is redriven: the promises are about that.
    """

    def __init__(self, needed: Collection[int]) -> None:
        self._needed = {f"job {at}" for at in needed}  # by jobs that have not ended
        self.queue = ServiceHarness()
        self.ids = ["job 0"]
        self.is_whole = True  #: nothing was forgotten or damaged
        self.over = False  #: job 0 is deleted, and its key is free

    async def begin(self) -> None:
        """Let job 0 fail."""
        self._watch()
        assert await self._submit("job 0") == ""
        await self.work(well=False)

    def _watch(self) -> None:
        self.queue.service.dead_letters._is_needed = self._needed.__contains__

    async def _submit(self, job_id: str, repeated: str = "") -> str | None:
        """Submit a job; return the known one that it stands for, None if it was refused."""
        key = f"redrive:{repeated}" if repeated else "key"
        made = submission(job_id, replace(header(max_retries=0), redriven_from=repeated, idempotency_key=key))
        reply = await self.queue.service.submit_and_linger([group(made)], 0.0)
        return reply.known.get(0, "") if reply.groups == [None] else None

    def states(self) -> dict[str, str]:
        """Return the states of the jobs that are kept."""
        return self.queue.memory.states(self.ids)

    def _ended(self, positions: Iterable[int]) -> list[str]:
        states = self.states()
        ids = [self.ids[at] for at in positions if at < len(self.ids)]
        return [job_id for job_id in ids if states.get(job_id, "queued") in TERMINAL]

    async def work(self, *, well: bool) -> None:
        """Let a worker run the last redrive, if that waits."""
        while self.queue.ready():
            claimed = await self.queue.claim()
            await self.queue.exchange(*(completed(one) if well else failed(one) for one in claimed), slots=0)

    async def redrive(self, *_: int) -> None:
        """Redrive the last one that is a dead letter, unless one behind it was not."""
        states = self.states()
        if "completed" in states.values() or self.queue.service._engine.core.live:
            return
        dead = [job_id for job_id in self.ids if states.get(job_id) == "dead_letter"]
        new = f"job {len(self.ids)}"
        if dead and await self._submit(new, dead[-1]) == "":
            self.ids.append(new)

    async def fail(self, *_: int) -> None:
        """Let the last redrive fail."""
        await self.work(well=False)

    async def restart(self, *_: int) -> None:
        """Go on after a crash."""
        self.queue = await self.queue.crashed()
        self._watch()

    async def delete(self, *positions: int) -> None:
        """Delete dead letters; see that the key is free only if no redrive may yet be done, or was."""
        done = {"completed", "queued"} & {*self.states().values()}
        ids = [self.ids[at] for at in positions if at < len(self.ids)]
        deleted = await self.queue.service.dead_letters.delete(ids)
        if "job 0" in deleted:
            key = self.queue.memory.keys(["key"])
            assert key or not done, f"the key is free, but its work is {done}"
            assert not key or done or not self.is_whole, "the key stays, but all that it stands for failed"
            self.over = not key

    async def forget(self, *positions: int) -> None:
        """Delete jobs as retention does."""
        seqs = [self.queue.memory._disk.seqs[job_id] for job_id in self._ended(positions)]
        self.is_whole = self.is_whole and not seqs
        await self.queue.service._commits.append(Effects(rows=Rows(deletes=seqs)))

    async def damage(self, *positions: int) -> None:
        """Make Progress unreadable."""
        disk = self.queue.memory._disk
        for job_id in self._ended(positions):
            disk.states[disk.seqs[job_id]] = (disk.states[disk.seqs[job_id]][0], b"\xc1 no progress")
            self.is_whole = False


async def check_chain(acts: Sequence[tuple[str, list[int]]], needed: Collection[int]) -> None:
    """Carry acts out, let what is left complete, then delete job 0."""
    chain = Chain(needed)
    await chain.begin()
    completed_once = False
    for name, positions in acts:
        if name == "complete":
            completed_once = completed_once or bool(chain.queue.service._engine.core.live)
            await chain.work(well=True)
        else:
            await getattr(chain, name)(*positions)
        if chain.over:
            break
    if not chain.over:
        await chain.delete(0)
    again = await chain._submit("again")
    assert not completed_once or again == "job 0", "what completed runs again"
    await chain.queue.service.close()


_POSITIONS = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)
_ACTS = ["redrive", "redrive", "fail", "fail", "complete", "delete", "delete", "forget", "damage", "restart"]


@settings(max_examples=150, deadline=None)
@given(
    acts=st.lists(st.tuples(st.sampled_from(_ACTS), _POSITIONS), max_size=16),
    needed=st.sets(st.integers(0, 4), max_size=2),
)
def test_what_a_redrive_of_a_redrive_completed_never_runs_again_under_the_first_key(
    acts: list[tuple[str, list[int]]], needed: set[int]
) -> None:
    asyncio.run(asyncio.wait_for(check_chain(acts, needed), 120))
