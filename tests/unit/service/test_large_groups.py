"""Chains and graphs too large for one step: the loop turns while they are made ready, and no half of one is seen."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from aiqueue.engine.effects import Rows
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import group, header, submission
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import turns

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


async def test_a_large_chain_is_in_one_commit_and_others_are_served_before_it(queue: ServiceHarness) -> None:
    sizes: list[int] = []
    queue.memory.on_commit = lambda rows: sizes.append(len(rows.jobs))
    submit = asyncio.create_task(queue.service.submit([chain()]))
    await turns(1)
    assert await queue.submit("other") is None
    assert queue.service._engine.core.live.keys() == {"other"}, "nothing of it is there yet"
    assert await submit == [None]
    assert [size for size in sizes if size] == [1, COUNT]


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
