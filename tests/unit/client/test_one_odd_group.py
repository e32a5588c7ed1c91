"""A group that can't be sent fails alone, whatever in it is odd: those that share its call, and later ones, go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import ValidationError
from aiqueue.ids import new_job_ids
from aiqueue.protocol import BatchSpec, JobHeader, Need, Submission, SubmitGroup
from aiqueue.testing.jobs import group, header, submission
from tests.tools.client_harness import ClientHarness

ODD = {
    "beyond 64 bits": 2**64,
    "below 64 bits": -(2**63) - 1,
    "beyond all bits": 10**400,
    "half a pair": "\ud800",
    "no message": object(),
    "of another type": [[7]],
}


def fields() -> Iterator[tuple[type, str]]:
    """Yield all that a group is made of."""
    for struct in (SubmitGroup, Submission, JobHeader, BatchSpec, Need):
        for name in struct.__struct_fields__:
            yield struct, name


def odd_group(struct: type, name: str, value: Any, *, jobs: int) -> SubmitGroup:
    """Return a group of ``jobs`` jobs, the last of which has ``value`` in a field; or so has the group itself."""
    batch_id, ids = f"batch-{new_job_ids(1)[0]}", new_job_ids(jobs)
    made = SubmitGroup(
        [submission(job_id, header(batch_id=batch_id)) for job_id in ids], batch=BatchSpec(batch_id, kind="fan_in")
    )
    last = made.jobs[-1]
    last.header.needs = (Need(ids[0]),)
    parts = {
        SubmitGroup: made,
        Submission: last,
        JobHeader: last.header,
        BatchSpec: made.batch,
        Need: last.header.needs[0],
    }
    setattr(parts[struct], name, value)
    return made


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize(("struct", "name"), list(fields()), ids=lambda part: getattr(part, "__name__", part))
async def test_whatever_is_odd_in_a_group_the_others_of_its_call_are_accepted(
    struct: type, name: str, value: Any, jobs: int, client: AsyncAIQueueAdapter, system: ClientHarness
) -> None:
    submit = client.session.submit
    odd = odd_group(struct, name, value, jobs=jobs)
    async with asyncio.timeout(120):
        first, refused, second = await asyncio.gather(
            submit(group(*new_job_ids(2))), submit(odd), submit(group(*new_job_ids(1))), return_exceptions=True
        )
        assert (first, second) == (None, None)
        assert isinstance(refused, ValidationError), refused
        assert await submit(group(*new_job_ids(1))) is None
    assert system.transport.calls["submit"] <= 3
