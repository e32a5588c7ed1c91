"""What leaves a line, a due time or a start deadline before its turn is not kept for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.engine.line import FEW
from aiqueue.testing.jobs import failed
from tests.tools.gated_queue import gated, refused, run
from tests.tools.queue_harness import QueueHarness

#: How jobs wait behind one that does not move, and what keeps them: the line of a closed gate, a time, a deadline.
WAITS: dict[str, dict[str, Any]] = {
    "line": {},
    "due": {"delay_ms": 3_600_000},
    "deadlines": {"expires_in_ms": 3_600_000},
}
STEPS = st.lists(st.tuples(st.sampled_from(["come", "go", "go"]), st.integers(1, 60)), max_size=30)


def entries(queue: QueueHarness, kept: str) -> int:
    """Return how many entries there are of jobs, whether they still wait or not."""
    core = queue.engine.core
    if kept == "line":
        return sum(len(line) for lane in core.lanes for line in lane._lines)
    return len(core.due) if kept == "due" else len(core.deadlines)


@pytest.mark.parametrize("kept", sorted(WAITS))
@given(steps=STEPS)
def test_no_more_is_kept_of_those_that_left_than_of_those_that_wait(kept: str, steps: list[tuple[str, int]]) -> None:
    queue = gated()
    (head,) = run(queue, 1)
    queue.exchange(failed(head, failure=refused(3_000.0)), slots=0)  # the gate is closed, the first one waits
    queue.submit("first", delay_ms=1_000 * (kept == "due"), expires_in_ms=1_000 * (kept == "deadlines"))
    waiting: list[str] = []
    for number, (step, count) in enumerate(steps):
        if step == "come":
            waiting += (names := [f"job-{number}-{at}" for at in range(count)])
            queue.submit(*names, **WAITS[kept])
        else:
            for name in waiting[:count]:
                queue.cancel(name)
            waiting = waiting[count:]
        live = len(waiting) + 2
        assert entries(queue, kept) <= 2 * live + FEW + 2
    assert {job.id for job in queue.engine.core.live.values()} == {head, "first", *waiting}


@pytest.mark.parametrize("kept", sorted(WAITS))
def test_ten_thousand_cancels_behind_one_that_waits_leave_next_to_nothing(kept: str) -> None:
    queue = gated()
    (head,) = run(queue, 1)
    queue.exchange(failed(head, failure=refused(3_000.0)), slots=0)
    queue.submit("first", delay_ms=1_000 * (kept == "due"), expires_in_ms=1_000 * (kept == "deadlines"))
    for part in range(20):
        names = [f"job-{part}-{at}" for at in range(500)]
        queue.submit(*names, **WAITS[kept])
        for name in names:
            queue.cancel(name)
    assert entries(queue, kept) <= FEW + 6
    queue.tick(3_000.0)
    assert queue.claim(5) == [head] + ["first"] * (kept != "deadlines")
