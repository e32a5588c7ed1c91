"""Whatever a submit's header and batch say on the wire: it is refused, or a restart finds all of it as it was."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import hypothesis.strategies as st
from hypothesis import example, given, settings
from msgspec.structs import replace

from aiqueue.protocol import BatchSpec, JobHeader, Need, Refusal, SubmitGroup
from aiqueue.submit_format import decode_groups, encode_groups
from aiqueue.testing.jobs import header, submission
from tests.tools.service_harness import ServiceHarness

Fields = dict[str, Any]

times = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 5e-324, 1e300, 1e13, -1e13, 1e12, 2e9, 0.0])
counts = st.sampled_from([-1, -(2**63), 0, 1, 3, 99, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**62, 2**63, 2**64 - 1])
words = st.sampled_from(["", "weird", "fail", "skip", "include", "a", "b", "batch"])
needs = st.lists(st.sampled_from(["a", "b", "earlier", "nowhere"]).map(Need), max_size=2).map(tuple)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": counts,
    "float": times,
    "str": words,
    "bool": st.booleans(),
    "bytes": st.sampled_from([b"", b"{}", b"\xc1"]),
    "tuple[str, ...]": st.sampled_from([(), ("x",)]),
    "tuple[Need, ...]": needs,
}


def fields_of(struct: type[JobHeader | BatchSpec], kept: str) -> st.SearchStrategy[Fields]:
    """Return strategies for some of a struct's fields, of any value that their types allow."""
    said = {name: BY_TYPE[str(struct.__annotations__[name])] for name in struct.__struct_fields__ if name != kept}
    one = st.sampled_from(sorted(said)).flatmap(lambda name: st.tuples(st.just(name), said[name]))
    return st.lists(one, max_size=3).map(dict)


def group_of(headers: list[Fields], spec: Fields | None, *, shared: bool) -> SubmitGroup:
    """Return a list of jobs, or a batch."""
    made = header(batch_id="" if spec is None else "batch")
    jobs = [submission(name, replace(made, **more)) for name, more in zip("abc", headers, strict=False)]
    if shared:
        for job in jobs:
            job.header = jobs[0].header
    return SubmitGroup(jobs, batch=None if spec is None else BatchSpec("batch", **spec))


async def check(group: SubmitGroup, *, prepared: bool) -> None:
    """Submit a group beside two that are as usual, and restart."""
    queue = ServiceHarness()
    if prepared:
        queue.service._intake.prepared_from = 1
    await queue.submit("earlier")
    calls = [SubmitGroup([submission("before")]), group, SubmitGroup([submission("behind")])]
    before, refusal, behind = await queue.service.submit(decode_groups(encode_groups(calls)))
    assert before is behind is None, "others of the call are refused"
    assert refusal is None or isinstance(refusal, Refusal)
    live = queue.service._engine.core.live
    assert refusal is None or live.keys() == {"earlier", "before", "behind"}, "refused, and accepted"
    await queue.service._tick(0.0)  # what is due at once has happened, here and there
    was = queue.service._engine.fingerprint()
    after = await queue.crashed()
    await after.service._tick(0.0)
    found = after.service._engine.fingerprint()
    await after.service.close()
    assert {key: (was[key], found[key]) for key in was if was[key] != found[key]} == {}


@settings(max_examples=400, deadline=None)
@given(
    headers=st.lists(fields_of(JobHeader, "batch_id"), min_size=1, max_size=3),
    spec=st.none() | fields_of(BatchSpec, "id"),
    shared=st.booleans(),
    prepared=st.booleans(),
)
@example(headers=[{"delay_ms": 2**62}], spec=None, shared=False, prepared=False)
@example(headers=[{}], spec={"max_failed_ratio": math.nan}, shared=False, prepared=False)
@example(headers=[{}, {}], spec={"max_concurrency": -1}, shared=False, prepared=True)
@example(headers=[{"needs": (Need("earlier"),)}], spec=None, shared=False, prepared=False)
def test_what_is_accepted_is_found_again_after_a_restart(
    headers: list[Fields], spec: Fields | None, shared: bool, prepared: bool
) -> None:
    asyncio.run(asyncio.wait_for(check(group_of(headers, spec, shared=shared), prepared=prepared), 120))
