"""Groups too large for one step: the loop turns while they are made ready, and no half of one is seen."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial

import pytest
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.engine.effects import Rows
from aiqueue.ids import ids_from, new_job_ids
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.service import steps
from aiqueue.testing.in_process import InProcessTransport
from aiqueue.testing.jobs import completed, failed, group, header, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns, until

COUNT = 3_500


def chain(name: str = "c", *, key: str = "", again: bool = False) -> SubmitGroup:
    jobs = [
        submission(
            f"{name}{n}",
            replace(
                header(batch_id=name),
                index=n,
                needs=(Need(f"{name}{n - 1}"),) if n else (),
                on_error="fail" if n else "",
                idempotency_key="" if n else key,
            ),
        )
        for n in range(COUNT)
    ]
    return SubmitGroup(jobs, again, batch=BatchSpec(name, "chain"))


def full_graph(key: str = "") -> SubmitGroup:
    """Return a graph of few jobs, each of which needs all that come before it."""
    ids = [f"g{n}" for n in range(90)]
    made = [replace(header(batch_id="g"), index=at, needs=tuple(map(Need, ids[:at]))) for at in range(len(ids))]
    jobs = list(map(submission, ids, made))
    for job in jobs[1:]:
        job.header.on_error = "fail"
    jobs[0].header.idempotency_key = key
    return SubmitGroup(jobs, batch=BatchSpec("g", "graph"))


def listed(*, first: str = "", count: int = COUNT) -> SubmitGroup:
    """Return a list without a batch, as one with a key is sent."""
    ids = ids_from(first or new_job_ids(1)[0], count)
    made = header()
    jobs = [submission(job_id, made) for job_id in ids]
    jobs[0].header = replace(made, idempotency_key="client-a:k")
    return SubmitGroup(jobs)


def fan_in(*needed: str, again: bool = False, metadata: bytes = b"", **fields: object) -> SubmitGroup:
    """Return one job that needs many others, as a fan-in sends it."""
    made = replace(header(batch_id="f", max_retries=0), needs=tuple(map(Need, needed)), on_error="fail", **fields)
    return SubmitGroup([submission("f0", made)], again, batch=BatchSpec("f", "fan_in"), metadata=metadata)


@pytest.mark.parametrize("make", [chain, full_graph, partial(full_graph, "client-a:k"), listed])
async def test_a_large_group_is_in_one_commit_and_others_are_served_before_it(
    queue: ServiceHarness, make: Callable[[], SubmitGroup]
) -> None:
    group = make()
    sizes: list[int] = []
    queue.memory.on_commit = lambda rows: sizes.append(len(rows.jobs))
    submit = asyncio.create_task(queue.service.submit([group]))
    await turns(1)
    other = asyncio.create_task(queue.submit("other"))
    await until(lambda: queue.service._engine.core.live)
    assert queue.service._engine.core.live.keys() == {"other"}, "nothing of it is there yet"
    assert (await other, await submit) == (None, [None])
    assert max(sizes) >= len(group.jobs), "the other one may be in the same commit"
    assert sum(sizes) == len(group.jobs) + 1


async def test_jobs_of_a_long_list_are_announced_some_at_a_time(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    log = queue.service._log
    monkeypatch.setattr(
        log, "publish", lambda events, publish=log.publish: (sizes.append(len(events)), publish(events))
    )
    assert await queue.service.submit([listed()]) == [None]
    await until(lambda: sum(sizes) == COUNT)
    assert max(sizes) <= 1_000


async def test_a_long_list_that_is_sent_again_under_its_key_is_there_once(queue: ServiceHarness) -> None:
    once, again = listed(), listed()
    assert await queue.service.submit([once]) == [None]
    reply = await queue.service.submit_and_linger([again], 0.0)
    assert (reply.groups, reply.known) == ([None], {0: once.jobs[0].id})
    repeated = listed(first=once.jobs[0].id)
    repeated.maybe_known = True
    reply = await queue.service.submit_and_linger([repeated], 0.0)
    assert (reply.groups, reply.known) == ([None], {})
    assert len(queue.service._engine.core.live) == COUNT


async def test_two_long_lists_under_one_key_at_once_are_one(queue: ServiceHarness) -> None:
    lists = [listed(), listed()]
    first, second = await asyncio.gather(*(queue.service.submit_and_linger([each], 0.0) for each in lists))
    assert (first.groups, second.groups) == ([None], [None])
    assert (first.known, second.known) == ({}, {0: lists[0].jobs[0].id})
    assert len(queue.service._engine.core.live) == COUNT


async def test_payloads_of_a_list_beyond_those_that_are_kept_are_read_when_they_are_claimed(
    queue: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_KEPT", 2)
    group = listed(count=1_001)
    for at, job in enumerate(group.jobs):
        job.payload = b'{"at": %d}' % at
    assert await queue.service.submit([group]) == [None]
    reply = await queue.exchange(slots=5)
    assert [claim.payload for claim in reply.claims] == [b'{"at": %d}' % at for at in range(5)]


async def test_a_queue_that_dies_while_it_accepts_a_large_chain_has_none_of_it(queue: ServiceHarness) -> None:
    queue.memory.hold()
    submit = asyncio.create_task(queue.service.submit([chain()]))
    while not queue.service._engine.core.live:  # noqa: ASYNC110  # until the step that accepts it
        await asyncio.sleep(0)
    survivor = await queue.crashed()
    await asyncio.gather(submit, return_exceptions=True)
    try:
        assert survivor.service._engine.core.live == {}
        assert await survivor.service.submit([chain(again=True)]) == [None]
        assert await survivor.claim(3) == ["c0"]
    finally:
        await survivor.service.close()


async def test_a_large_chain_sent_twice_at_once_is_there_once(queue: ServiceHarness) -> None:
    written = Rows()
    queue.memory.on_commit = written.extend
    calls = [queue.service.submit([chain(again=again)]) for again in (False, True)]
    assert await asyncio.gather(*calls) == [[None], [None]]
    assert len(written.jobs) == COUNT
    assert len(written.batches) == 1


async def test_a_key_used_for_two_large_chains_at_once_makes_one(queue: ServiceHarness) -> None:
    calls = [queue.service.submit_and_linger([chain(name, key="client-a:k")], 0.0) for name in "cd"]
    first, second = await asyncio.gather(*calls)
    assert (first.groups, second.groups) == ([None], [None])
    assert (first.known, second.known) == ({}, {0: "c0"})
    assert len(queue.service._engine.core.live) == COUNT


async def test_a_large_group_beside_others_in_one_call_is_accepted_in_its_place(queue: ServiceHarness) -> None:
    wrong = chain("w")
    wrong.jobs[COUNT - 1].header.needs = (Need("nobody"),)
    replies = await queue.service.submit([group("first"), wrong, chain(), group("last")])
    assert [reply and reply.kind for reply in replies] == [None, "invalid_input", None, None]
    assert await queue.claim(4) == ["first", "c0", "last"]


async def test_a_job_that_needs_many_others_keeps_its_metadata_and_is_known_when_it_is_sent_again(
    queue: ServiceHarness,
) -> None:
    queue.service._intake.prepared_from = 3
    await queue.submit(*"abcd")
    assert await queue.service.submit([fan_in(*"abcd", metadata=b'{"run":7}')]) == [None]
    assert (await queue.view("f0")).header.metadata == b'{"run":7}'
    assert await queue.service.submit([fan_in(*"abcd", metadata=b'{"run":7}', again=True)]) == [None]
    other = fan_in(*"abcd", metadata=b'{"run":8}', again=True)
    assert [reply and reply.kind for reply in await queue.service.submit([other])] == ["duplicate_job"]


async def test_a_dead_letter_that_needed_many_others_runs_once_though_it_is_redriven_and_its_batch_retried(
    queue: ServiceHarness,
) -> None:
    queue.service._intake.prepared_from = 3
    client = AsyncAIQueueAdapter(InProcessTransport(queue.service))
    await client.start()
    await queue.submit(*"abcd")
    await queue.exchange(*map(completed, await queue.claim(4)), slots=0)
    assert await queue.service.submit([fan_in(*"abcd")]) == [None]
    await queue.exchange(*map(failed, await queue.claim()), slots=0)
    redriven = await client.dead_letters.redrive(["f0"])
    retried = await queue.service.batches.call(BatchCall("f", "retry_failed"))
    assert (retried.changed, list(queue.service._engine.core.live)) == (0, redriven)
    await client.stop()


async def test_a_large_group_that_repeats_no_dead_letter_is_refused(queue: ServiceHarness) -> None:
    queue.service._intake.prepared_from = 3
    await queue.submit(*"abcd")
    assert [reply and reply.kind for reply in await queue.service.submit([fan_in(*"abcd", redriven_from="a")])] == [
        "dead_letter_not_found"
    ]


@pytest.mark.parametrize("place", [0, 1_200])
async def test_a_large_list_repeats_a_dead_letter_that_no_other_repeats_meanwhile(
    queue: ServiceHarness, place: int
) -> None:
    await queue.submit("dead", max_retries=0)
    await queue.claim()
    await queue.exchange(failed("dead"), slots=0)

    def repeating(name: str) -> SubmitGroup:
        jobs = [submission(f"{name}{at}") for at in range(1_500)]
        jobs[place].header.redriven_from = "dead"
        return SubmitGroup(jobs)

    replies = await asyncio.gather(*(queue.service.submit([repeating(name)]) for name in "ab"))
    assert sorted((reply and reply.kind) or "" for (reply,) in replies) == ["", "idempotency_conflict"]
    assert len(queue.service._engine.core.live) == 1_500


@pytest.mark.parametrize("batch", ["", "b"])
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize(
    "fields", [{"level": 9}, {"level": -1}, {"max_retries": -1}, {"timeout_ms": 2**60}, {"run_at": math.nan}]
)
async def test_a_large_group_with_an_impossible_number_is_refused_in_the_words_of_a_small_one(
    queue: ServiceHarness, fields: dict[str, float], place: int, batch: str
) -> None:
    made = header(batch_id=batch)
    jobs = [submission(name, made) for name in "abc"]
    jobs[place].header = replace(made, **fields)
    sent = SubmitGroup(jobs, batch=BatchSpec(batch) if batch else None)
    (small,) = await queue.service.submit([sent])
    assert small is not None
    queue.service._intake.prepared_from = 1
    assert await queue.service.submit([sent]) == [small]
    assert (small.kind, small.job_id) == ("invalid_input", "abc"[place])
