"""A line against a sorted list, whatever comes back to it, leaves it and is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiqueue.engine.core import Core
from aiqueue.engine.counters import Counters
from aiqueue.engine.line import Line
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.testing.jobs import header
from tests.tools.queue_harness import POLICY

STEPS = st.lists(st.tuples(st.sampled_from(["new", "back", "leave", "take"]), st.integers(0, 30)), max_size=80)


@given(STEPS)
def test_the_first_is_always_the_earliest(steps: list[tuple[str, int]]) -> None:
    core, line = Core(POLICY, Counters()), Line()
    waiting: dict[int, tuple[float, int, JobRecord]] = {}
    gone: list[tuple[float, int, JobRecord]] = []
    for number, (step, draw) in enumerate(steps):
        if step == "new":
            job = core.record(number, f"job-{number}", header())
            waiting[number] = (float(number // 3), number, job)  # some have the same deadline
            line.push(waiting[number])
        elif step == "back" and gone:
            entry = gone.pop(draw % len(gone))
            entry[2].state = JobState.QUEUED
            waiting[entry[1]] = entry
            line.push(entry)
        elif step == "leave" and waiting:
            line.leave()
            waiting.pop([*waiting][draw % len(waiting)])[2].state = JobState.CANCELLED
        elif step == "take" and waiting:
            first = min(waiting.values())
            assert line.first() == first
            job = line.pop()
            assert job is first[2]
            job.state = JobState.PROCESSING
            gone.append(waiting.pop(first[1]))
        assert [job.id for job in line] == [job.id for _, _, job in sorted(waiting.values())]
        assert line._stale == len(line) - len(waiting)
    assert (line.first() is None) == (not waiting)
