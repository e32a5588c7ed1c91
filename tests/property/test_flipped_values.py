"""A row of a live job in which a value or a bit was flipped: the queue starts, and no other job is hurt."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from hypothesis import example, given, settings
from msgspec.structs import replace

from aiqueue.config import RetentionConfig
from aiqueue.engine.records import Progress, decode_progress
from aiqueue.protocol import BatchSpec, JobHeader, JobView, Need, SubmitGroup, decode_header, encode
from aiqueue.testing.jobs import completed, failed, header, submission
from aiqueue.testing.jobs import settings as queue_settings
from aiqueue.testing.memory_journal import MemoryJournal
from aiqueue.views import encode_json, readable_info
from tests.tools.service_harness import ServiceHarness

#: One of each: claimed, waits for a retry, waits, waits for a date, is of a batch, steps of a chain.
IDS = ("runs", "retry", "waits", "later", "in-batch", "first", "second")
INNOCENT = ("good-1", "good-2", "good-3")
DAYS = 86_400.0

times = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 5e-324, 1e300, -1e300, 1e18, 1e12, 0.0])
counts = st.sampled_from([-1, -(2**63), 0, 99, 2**31, 2**53, 2**62, 2**63, 2**64 - 1])
words = st.sampled_from(["", "weird", "fail", "skip", "processing", "runs", "second"])
needs = st.sampled_from(IDS).map(lambda job_id: (Need(job_id, ("previous",)),))
states = st.sampled_from(["", "weird", "Queued", "queued", "scheduled", "blocked", "processing", "cancelling"])


def a_field(struct: type[JobHeader | Progress]) -> st.SearchStrategy[tuple[str, Any]]:
    by_type = {"int": counts, "float": times, "str": words, "tuple[Need, ...]": needs}
    fields = [
        st.tuples(st.just(name), by_type[said])
        for name, said in ((name, str(struct.__annotations__[name])) for name in struct.__struct_fields__)
        if said in by_type
    ]
    return st.one_of(fields)


Spoil = Callable[[MemoryJournal, int], None]


def of_header(change: tuple[str, Any]) -> Spoil:
    def spoil(journal: MemoryJournal, seq: int) -> None:
        row = journal._disk.jobs[seq]
        journal._disk.jobs[seq] = row._replace(header=encode(replace(decode_header(row.header), **dict([change]))))

    return spoil


def of_progress(change: tuple[str, Any]) -> Spoil:
    def spoil(journal: MemoryJournal, seq: int) -> None:
        if seq in journal._disk.states:
            state, progress = journal._disk.states[seq]
            journal._disk.states[seq] = (state, encode(replace(decode_progress(progress), **dict([change]))))

    return spoil


def of_state(said: tuple[str, bool]) -> Spoil:
    def spoil(journal: MemoryJournal, seq: int) -> None:
        progress = journal._disk.states.get(seq, ("", b""))[1] if said[1] else b""
        journal._disk.states[seq] = (said[0], progress)

    return spoil


def of_bit(said: tuple[str, int]) -> Spoil:
    def flipped(row: bytes) -> bytes:
        at = said[1] % (8 * len(row))
        return bytes(byte ^ ((1 << at % 8) if place == at // 8 else 0) for place, byte in enumerate(row))

    def spoil(journal: MemoryJournal, seq: int) -> None:
        disk = journal._disk
        if said[0] == "header" or seq not in disk.states:
            disk.jobs[seq] = disk.jobs[seq]._replace(header=flipped(disk.jobs[seq].header))
        elif said[0] == "progress":
            disk.states[seq] = (disk.states[seq][0], flipped(disk.states[seq][1]))
        else:
            state = flipped(disk.states[seq][0].encode()).decode(errors="replace")
            disk.states[seq] = (state, disk.states[seq][1])

    return spoil


spoils = st.one_of(
    a_field(JobHeader).map(of_header),
    a_field(Progress).map(of_progress),
    st.tuples(states, st.booleans()).map(of_state),
    st.tuples(st.sampled_from(["header", "progress", "state"]), st.integers(0, 2_047)).map(of_bit),
)


async def with_jobs() -> ServiceHarness:
    """Return a queue with a job of each kind, and others beside them."""
    queue = ServiceHarness(queue_settings().model_copy(update={"retention": RetentionConfig(max_age_s=1e9)}))
    await queue.submit("runs", "retry", "good-1")
    assert await queue.claim(3) == ["runs", "retry", "good-1"]
    await queue.exchange(failed("retry"), slots=0)
    await queue.submit("waits", "good-2")
    await queue.submit("later", run_at=queue.clock.now() + DAYS)
    in_batch, step = header(batch_id="batch"), header(batch_id="chain")
    second = replace(step, index=1, needs=(Need("first", ("previous",)),), on_error="fail")
    await queue.service.submit(
        [
            SubmitGroup([submission("in-batch", in_batch)], batch=BatchSpec("batch")),
            SubmitGroup([submission("first", step), submission("second", second)], batch=BatchSpec("chain")),
        ]
    )
    await queue.submit("good-3")
    return queue


async def shown(queue: ServiceHarness) -> dict[str, JobView]:
    """Return all jobs as they are looked up; a client can show each, and an HTTP server too."""
    views = await queue.service.get_jobs([*IDS, *INNOCENT])
    assert all(views)
    for view in views:
        encode_json(readable_info(view))
    return {view.id: view for view in views if view}


async def run_all(queue: ServiceHarness) -> None:
    """Let a worker run what it is given, until nothing comes any more."""
    for _ in range(8):
        queue.clock.advance(DAYS / 2)  # leases end, and what was delayed or waits for a retry comes due
        queue.service._tick(0.0)
        while queue.ready():
            reply = await queue.exchange(slots=16)
            await queue.exchange(*(completed(job.job_id, job.attempt) for job in reply.claims), slots=0)
        assert not queue.service._faults.failed, queue.service._faults.failed


async def check(target: str, spoil: Spoil) -> None:
    queue = await with_jobs()
    spoil(queue.memory, queue.memory._disk.seqs[target])
    await shown(queue)
    after = await queue.crashed()
    await shown(after)
    await run_all(after)
    views = await shown(after)
    touched = {target, "second"} if target == "first" else {target}
    assert {job_id: view.status for job_id, view in views.items() if job_id not in touched} == {
        job_id: "completed" for job_id in views if job_id not in touched
    }
    if views[target].status == "failed":
        assert readable_info(views[target]).error is not None
    again = await after.crashed()
    assert set(again.service._engine.core.live) <= touched
    await shown(again)
    await again.service.close()


@settings(max_examples=60)
@given(st.sampled_from(IDS), spoils)
@example("waits", of_header(("level", 99)))
@example("retry", of_header(("level", -1)))
@example("later", of_header(("run_at", math.nan)))
@example("runs", of_progress(("attempt", 2**63)))
@example("second", of_header(("needs", (Need("second"),))))
@example("second", of_header(("on_error", "weird")))
@example("waits", of_state(("blocked", True)))
def test_a_row_with_a_flipped_value_keeps_no_queue_from_starting_and_hurts_no_other_job(
    target: str, spoil: Spoil
) -> None:
    asyncio.run(check(target, spoil))
