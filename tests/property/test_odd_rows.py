"""Calls with groups of several callers on a journal of which some rows can't be read: each group is answered alone."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import example, given, settings
from msgspec.structs import replace

from aiqueue.journal.base import Journal
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import completed, failed, header, submission
from aiqueue.testing.memory_journal import MemoryJournal
from tests.tools.odd_rows import Row, spoil
from tests.tools.service_harness import ServiceHarness

PLAIN = header(max_retries=0)


def keyed(job_id: str, key: str) -> SubmitGroup:
    """Return a job that may have been sent before."""
    return SubmitGroup([submission(job_id, replace(PLAIN, idempotency_key=key))], True)


class Sent(NamedTuple):
    """What one caller submits: a kind of group, and the row that it names."""

    kind: str
    name: str

    def rows(self) -> set[Row]:
        """Return the rows that answer it."""
        if self.kind == "new":
            return set()
        names = {self.name, f"batch of {self.name}"}
        return {(table, name) for table in ("jobs", "states", "keys", "batches") for name in names}

    def group(self, place: int, *, maybe_known: bool) -> SubmitGroup:
        """Return the group; ``place``: in its call, so that callers' ids differ."""
        new = f"new-{place}"
        batch = BatchSpec(f"batch of {new}")
        step = replace(PLAIN, batch_id=batch.id, needs=(Need(self.name),), on_error="include")
        match self.kind:
            case "again":
                return keyed(self.name, self.name)
            case "key":
                return keyed(new, self.name)
            case "needs":
                return SubmitGroup([submission(new, step)], maybe_known, replace(batch, kind="graph"))
            case "repeats":
                repeat = submission(new, replace(PLAIN, redriven_from=self.name))
                return SubmitGroup([submission(f"{new}-first", replace(PLAIN)), repeat], maybe_known)
            case "batch":
                spec = BatchSpec(f"batch of {self.name}")
                return SubmitGroup([submission(new, replace(PLAIN, batch_id=spec.id))], maybe_known, spec)
        return SubmitGroup([submission(new, replace(PLAIN))], maybe_known)


names = st.sampled_from(["done", "dead", "live", "nowhere"])
sent = st.builds(Sent, st.sampled_from(["new", "again", "key", "needs", "repeats", "batch"]), names)
tables = st.sampled_from(["jobs", "states", "keys", "batches"])
odd_rows = st.sets(st.tuples(tables, names | names.map(lambda name: f"batch of {name}")), min_size=1, max_size=3)


async def begun(journal: Journal) -> ServiceHarness:
    """Return a queue with a completed job, a dead letter and a live job, all with keys; and an open batch for each."""
    queue = ServiceHarness(journal=journal)
    for name in ("done", "dead", "live"):
        spec = BatchSpec(f"batch of {name}", is_open=True)
        of_batch = SubmitGroup([submission(f"{name} in batch", replace(PLAIN, batch_id=spec.id))], batch=spec)
        assert await queue.service.submit([keyed(name, name), of_batch]) == [None, None]
    assert await queue.claim(2) == ["done", "dead"]
    await queue.exchange(completed("done"), failed("dead"), slots=0)
    return queue


Answers = list[tuple[str, str]]  #: of each group: why it was refused, and which job has its key


async def answers_of(queue: ServiceHarness, groups: Sequence[SubmitGroup]) -> Answers:
    reply = await queue.service.submit_and_linger(groups, 0.0)
    return [(refusal.kind if refusal else "", reply.known.get(at, "")) for at, refusal in enumerate(reply.groups)]


async def check(journals: Sequence[Journal], call: Sequence[Sent], odd: set[Row], *, maybe_known: bool) -> None:
    """Make the same call of two queues, one of which has odd rows.

    What is answered to a group that names one depends: it may have been refused, or one before it that it follows.
    """
    sound, spoilt = [await begun(journal) for journal in journals]
    ids = [{job.id for job in one.group(at, maybe_known=False).jobs} for at, one in enumerate(call)]
    was = journals[1].jobs(set[str]().union(*ids)).keys()
    spoil(spoilt.journal, reads := set(odd))
    usual = await answers_of(sound, [one.group(at, maybe_known=maybe_known) for at, one in enumerate(call)])
    given_ = await answers_of(spoilt, [one.group(at, maybe_known=maybe_known) for at, one in enumerate(call)])
    reads.clear()
    there = journals[1].jobs(set[str]().union(*ids)).keys()
    for queue in (sound, spoilt):
        await queue.service.close()
    for one, jobs, (refused, known), as_usual in zip(call, ids, given_, usual, strict=True):
        if refused or known:
            assert jobs & there <= was, f"{one} is on disk, and its caller was told {refused or known}"
        else:
            assert jobs <= there, f"{one} was accepted, and is not there"
        if one.rows().isdisjoint(odd):
            assert (refused, known) == as_usual, f"{one} names no odd row"


def in_memory() -> list[Journal]:
    return [MemoryJournal(), MemoryJournal()]


ONE_OF_THREE = [Sent("new", ""), Sent("again", "done"), Sent("key", "live")]
call_of_several = given(calls=st.lists(sent, min_size=1, max_size=4), odd=odd_rows, maybe_known=st.booleans())


@settings(max_examples=200, deadline=None)
@call_of_several
@example(calls=ONE_OF_THREE, odd={("jobs", "done")}, maybe_known=False)
@example(calls=[Sent("new", ""), Sent("needs", "done")], odd={("states", "done")}, maybe_known=False)
def test_groups_of_a_call_on_a_journal_with_odd_rows_are_answered_each_alone(
    calls: list[Sent], odd: set[Row], maybe_known: bool
) -> None:
    asyncio.run(asyncio.wait_for(check(in_memory(), calls, odd, maybe_known=maybe_known), 120))


@settings(max_examples=25, deadline=None)
@call_of_several
@example(calls=ONE_OF_THREE, odd={("jobs", "done")}, maybe_known=False)
def test_groups_of_a_call_on_a_real_journal_with_odd_rows_are_answered_each_alone(
    calls: list[Sent], odd: set[Row], maybe_known: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "sound.db"), Path(folder, "spoilt.db")]
        journals = [SqliteJournal(file, durability="off") for file in files]
        asyncio.run(asyncio.wait_for(check(journals, calls, odd, maybe_known=maybe_known), 120))
