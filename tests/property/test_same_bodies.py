"""What is submitted again is the same whatever order the keys of its objects come in, at any depth."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.errors import DuplicateJob, IdempotencyConflict
from aiqueue.ids import ids_from, new_job_ids
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import header, submission
from tests.tools.service_harness import ServiceHarness

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab\n\u00e9")
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3)
)
objects = st.dictionaries(st.text("xyz", min_size=1), values, max_size=3)
WAYS = ["key", "key of a list", "key of a batch", "id"]


def turned(value: Any) -> Any:
    """Return the value with the keys of all objects in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


def sorted_json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def sent(way: str, payload: Any, metadata: Any, first: str) -> SubmitGroup:
    """Return a submit as a client makes it."""
    body = msgspec.json.encode(payload)
    options = header(batch_id="b" if way == "key of a batch" else "")
    ids = ids_from(first, 1 if way in ("key", "id") else 2)
    jobs = [submission(job_id, options, body) for job_id in ids]
    if way != "id":
        jobs[0].header = replace(options, idempotency_key="default:key")
    batch = BatchSpec("b", metadata=msgspec.json.encode(metadata)) if way == "key of a batch" else None
    return SubmitGroup(jobs, maybe_known=way == "id", batch=batch, metadata=msgspec.json.encode(metadata))


@given(way=st.sampled_from(WAYS), payload=objects, metadata=objects, others=st.tuples(objects, objects))
def test_a_submit_is_the_same_whatever_order_its_keys_come_in_and_another_is_refused(
    way: str, payload: Any, metadata: Any, others: tuple[Any, Any]
) -> None:
    async def run() -> None:
        queue = ServiceHarness()
        first, *later = new_job_ids(3) if way != "id" else new_job_ids(1) * 3

        async def submit(job_id: str, payload: Any, metadata: Any) -> tuple[str, str]:
            reply = await queue.service.submit_and_linger([sent(way, payload, metadata, job_id)], 0.0)
            (refusal,) = reply.groups
            return refusal.kind if refusal else "", reply.known.get(0, job_id)

        assert await submit(first, payload, metadata) == ("", first)
        assert await submit(later[0], turned(payload), turned(metadata)) == ("", first)
        is_same = sorted_json(list(others)) == sorted_json([payload, metadata])
        kind, _ = await submit(later[1], *others)
        refused = DuplicateJob.kind if way == "id" else IdempotencyConflict.kind
        assert kind == ("" if is_same else refused)
        await queue.service.close()

    asyncio.run(run())
