"""What callers give in Python: ids in the forms that they have them, and numbers within bounds."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from aiqueue.client import given
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.testing.jobs import chat
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns

ID = "01985a30-0000-7000-8000-00000000ff05"


def refusal_of(call: Any, *args: Any, **more: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        call(*args, **more)
    return str(caught.value)


@pytest.mark.parametrize("value", [ID, UUID(ID)])
def test_an_id_may_be_a_text_or_a_uuid(value: Any) -> None:
    assert given.job_id(value) == ID
    assert given.job_ids((value,)) == given.job_ids(iter([value])) == [ID]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a\ud800", "job_id: holds half of a surrogate pair at place 1, which is no character"),
        ("x" * 1_025, "job_id: must have at most 1024 characters, not 1025"),
        (5, "job_id: must be the id of a job, which is a text, not int"),
        (None, "job_id: must be the id of a job, which is a text, not NoneType"),
    ],
)
def test_what_is_no_id_is_refused_with_what_is_wanted(value: Any, said: str) -> None:
    assert refusal_of(given.job_id, value) == said
    assert refusal_of(given.job_ids, [ID, value]) == said.replace("job_id:", "job_ids.1:")


@pytest.mark.parametrize("value", [ID, b"x", {"a": ID}, 5, None])
def test_what_is_no_list_of_ids_is_refused_with_what_is_wanted(value: Any) -> None:
    assert refusal_of(given.job_ids, value).startswith("job_ids: must be a list of job ids, not ")


@pytest.mark.parametrize("value", [-1, 2**63, 2**70, True, 1.0, "1", None])
def test_a_number_that_is_none_or_out_of_range_is_refused(value: Any) -> None:
    assert refusal_of(given.number, "after", value).startswith("after: must be a whole number")


def test_numbers_and_times_in_range_are_taken() -> None:
    assert [given.number("n", number) for number in (0, 2**63 - 1)] == [0, 2**63 - 1]
    assert given.moment("since", datetime(1970, 1, 2, tzinfo=UTC)) == 86_400.0
    assert refusal_of(given.moment, "since", datetime.min).startswith("since: is no time that this machine knows")


async def test_what_a_wait_returned_stands_for_the_ids_of_its_jobs(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    await system.work()
    ended = await client.wait_all(await client.submit_jobs([chat("a"), chat("b")]))
    async with AsyncAIJobOrchestrator(client) as orchestrator:
        job_id = await orchestrator.fan_in_job(ended, chat("{{results}}"))  # type: ignore[arg-type]
    assert (await client.wait(UUID(job_id))).status == "completed"  # type: ignore[arg-type]
    assert (await client.get_job_status(ended[0])) == ended[0]  # type: ignore[arg-type]


async def test_events_of_what_is_no_id_hold_up_no_wait_of_the_same_client(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    with pytest.raises(ValidationError, match="job_id: holds half of a surrogate pair"):
        await client.events(job_id="\ud800").poll(60.0)
    waiting = asyncio.ensure_future(client.wait(await client.submit_job(chat())))
    await turns(20)
    await system.work()
    assert (await waiting).status == "completed"
