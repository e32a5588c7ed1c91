"""Submits that repeat a dead letter which another job of the same call repeats too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from aiqueue.engine import Submit
from aiqueue.protocol import BatchSpec, Submission, SubmitGroup
from aiqueue.testing.jobs import failed, group, header, submission
from tests.tools.service_harness import ServiceHarness


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    """Return a queue with the dead letters ``d`` and ``e``."""
    made = ServiceHarness()
    await made.submit("d", "e", max_retries=0)
    await made.claim(2)
    await made.exchange(failed("d"), failed("e"), slots=0)
    yield made
    await made.service.close()


def repeat(job_id: str, repeated: str, **fields: object) -> Submission:
    return submission(job_id, replace(header(), redriven_from=repeated, **fields))


def live(queue: ServiceHarness) -> set[str]:
    return set(queue.service._engine.core.live)


@pytest.mark.parametrize("shared", [False, True])
async def test_two_jobs_of_a_group_that_repeat_the_same_dead_letter_are_refused(
    queue: ServiceHarness, shared: bool
) -> None:
    first, second = repeat("x", "d"), repeat("y", "d")
    second.header = first.header if shared else second.header
    (refusal,) = await queue.service.submit([group(first, second)])
    assert refusal is not None
    assert (refusal.kind, refusal.job_id) == ("invalid_input", "y")
    assert "dead letter d, as job x does" in refusal.message
    assert not live(queue)
    assert await queue.service.submit([group(first)]) == [None]


async def test_two_jobs_of_a_batch_that_repeat_the_same_dead_letter_are_refused(queue: ServiceHarness) -> None:
    jobs = [repeat(name, "d", batch_id="b") for name in "xy"]
    (refusal,) = await queue.service.submit([SubmitGroup(jobs, batch=BatchSpec("b"))])
    assert refusal is not None
    assert not live(queue)


async def test_of_two_groups_of_a_call_that_repeat_the_same_dead_letter_one_is_accepted(queue: ServiceHarness) -> None:
    first, second = await queue.service.submit([group(repeat("x", "d")), group(repeat("y", "d"))])
    assert first is None
    assert second is not None
    assert (second.kind, second.job_id) == ("idempotency_conflict", "x")
    assert live(queue) == {"x"}


async def test_of_two_groups_of_a_command_that_repeat_the_same_dead_letter_one_is_accepted(
    queue: ServiceHarness,
) -> None:
    stored = queue.journal.jobs(["d"])["d"]
    repeated = {"d": (stored.seq, stored.state, stored.progress)}
    command = Submit([group(repeat("x", "d")), group(repeat("y", "d"))], repeated=repeated)
    first, second = queue.service._engine.handle(command, now=queue.clock.now()).reply
    assert first is None
    assert second is not None
    assert (second.kind, second.job_id) == ("idempotency_conflict", "x")


async def test_a_job_that_repeats_a_dead_letter_is_accepted_behind_one_that_repeats_none(queue: ServiceHarness) -> None:
    groups = [group("w", repeat("x", "d")), group("alone"), group("v", repeat("y", "nowhere"))]
    accepted, alone, refused = await queue.service.submit(groups)
    assert accepted is alone is None
    assert refused is not None
    assert (refused.kind, refused.message) == ("dead_letter_not_found", "nowhere")
    assert live(queue) == {"w", "x", "alone"}


async def test_two_jobs_of_a_group_that_repeat_two_dead_letters_are_accepted(queue: ServiceHarness) -> None:
    assert await queue.service.submit([group(repeat("x", "d"), repeat("y", "e"))]) == [None]
    assert live(queue) == {"x", "y"}
