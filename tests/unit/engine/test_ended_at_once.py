"""Steps that end in the very turn in which they are accepted, and those that need them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from aiqueue.engine import Submit
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import failed, header, submission
from tests.tools.gated_queue import gated, refused


@pytest.mark.parametrize(("on_error", "claimed"), [("fail", []), ("skip", ["b1"]), ("include", ["b1"])])
def test_a_step_behind_one_that_failed_at_a_closed_gate_goes_by_its_rule(on_error: str, claimed: list[str]) -> None:
    queue = gated()
    queue.submit("first")
    queue.claim()
    queue.exchange(failed("first", 1, refused(60.0)))
    first = replace(header(batch_id="b"), fail_fast=True)
    second = replace(header(batch_id="b"), index=1, model="other", needs=(Need("b0"),), on_error=on_error)
    third = replace(second, index=2, needs=(Need("b1"),))
    jobs = [submission("b0", first), submission("b1", second), submission("b2", third)]
    assert queue.do(Submit([SubmitGroup(jobs, batch=BatchSpec("b", "chain"))])).reply == [None]
    assert queue.claim(3) == claimed
    assert ("b2" in queue.engine.core.live) is bool(claimed)
