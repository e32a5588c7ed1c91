"""What submits are compared by."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from aiqueue.engine.effects import Rows
from aiqueue.engine.schedule_records import SchedulesCall
from aiqueue.errors import IdempotencyConflict
from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.service.digests import digest_of, in_order
from aiqueue.testing.jobs import header, submission
from tests.tools.schedules import spec
from tests.tools.service_harness import ServiceHarness

#: As 0.1 kept them: hashes of the bytes that were sent, whatever order their keys had.
OF_EARLIER_RELEASES = {False: "60a390d3b9917834873d9a94fbe2adf4", True: "c3531f9d805b110c0e7276a12d16e72d"}


def group(prefix: str, *, in_batch: bool, metadata: bytes = b'{"user": 7, "run": {"b": 1, "a": 2}}') -> SubmitGroup:
    options = header(batch_id="nightly" if in_batch else "", tags=("a",))
    jobs = [submission(f"{prefix}-{n}", options, b'{"type": "x", "b": 1, "a": %d}' % n) for n in (1, 2)]
    jobs[0].header = replace(options, idempotency_key="default:key")
    batch = BatchSpec("nightly", tags=("a",), metadata=metadata) if in_batch else None
    return SubmitGroup(jobs, batch=batch, metadata=metadata)


@pytest.mark.parametrize("in_batch", [False, True])
async def test_a_key_that_an_earlier_release_kept_stands_for_its_submit(queue: ServiceHarness, in_batch: bool) -> None:
    assert await queue.service.submit([group("job", in_batch=in_batch)]) == [None]
    (row,) = queue.memory._disk.keys.values()
    assert row.digest.hex() != OF_EARLIER_RELEASES[in_batch]
    old = bytes.fromhex(OF_EARLIER_RELEASES[in_batch])
    queue.journal.commit(Rows(keys=[row._replace(digest=old)]))
    again = await queue.service.submit_and_linger([group("again", in_batch=in_batch)], 0.0)
    assert (again.groups, again.known) == ([None], {0: "job-1"})
    other = group("other", in_batch=in_batch, metadata=b'{"user": 8}')
    (refusal,) = (await queue.service.submit_and_linger([other], 0.0)).groups
    assert refusal is not None
    assert refusal.kind == IdempotencyConflict.kind


async def test_a_schedule_is_the_same_whatever_order_its_keys_come_in(queue: ServiceHarness) -> None:
    async def add(schedule_id: str, payload: bytes, metadata: bytes) -> str:
        asked = replace(spec(), id=schedule_id, name=schedule_id, payload=payload)
        asked = replace(asked, name="nightly", header=replace(asked.header, metadata=metadata))
        reply = await queue.service.schedules.answer(SchedulesCall("add", spec=asked, key="default:key"))
        return reply.refusal.kind if reply.refusal else reply.schedules[0].spec.id

    assert await add("one", b'{"a": 1, "b": {"c": 2, "d": 3}}', b'{"x": 1, "y": 2}') == "one"
    assert await add("two", b'{"b": {"d": 3, "c": 2}, "a": 1}', b'{"y": 2, "x": 1}') == "one"
    assert await add("three", b'{"a": 1, "b": {"c": 2, "d": 4}}', b'{"x": 1, "y": 2}') == IdempotencyConflict.kind


@pytest.mark.parametrize("body", [b"", b"no JSON", b"{", b'"\xff"', b"[" * 100_000, b'{"a":1e999}'])
def test_what_is_no_json_is_compared_as_it_is(body: bytes) -> None:
    assert in_order(body) == body
    sent = group("job", in_batch=False, metadata=body)
    assert digest_of(sent) == digest_of(group("other", in_batch=False, metadata=body))
    assert digest_of(sent) != digest_of(group("other", in_batch=False, metadata=body + b" "))


def test_lists_are_others_in_another_order_and_so_are_numbers_of_another_kind() -> None:
    assert in_order(b"[1,2]") != in_order(b"[2,1]")
    assert len({in_order(body) for body in (b"1", b"1.0", b"true", b'"1"')}) == 4
    big = b"123456789012345678901234567890"
    assert in_order(big) == big
