"""Large groups made ready that have a fault, or repeat dead letters: answered as others, and not gone through again."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
from msgspec.structs import replace

from aiqueue.engine import Submit
from aiqueue.engine.successors import successor_of
from aiqueue.protocol import BatchSpec, Need, Submission, SubmitGroup
from aiqueue.testing.jobs import header, submission
from tests.tools.queue_harness import QueueHarness
from tests.unit.engine.test_prepared import dead_letters, goes_on, graph, job, queue_with_others, submitted


class Looked(list[Submission]):
    """Jobs, and how often they are all gone through."""

    passes = 0

    def __iter__(self) -> Iterator[Submission]:
        self.passes += 1
        return super().__iter__()


def spoil(group: SubmitGroup, fault: str) -> None:
    """Give a chain a fault with which it is never accepted."""
    assert group.batch is not None
    last = group.jobs[-1].header
    if fault == "ratio":
        group.batch.max_failed_ratio = 2.0
    elif fault == "edges":
        last.needs = tuple(Need("g0") for _ in range(10_001))
    elif fault == "twice":
        group.jobs[-1] = submission("g1", last)
    elif fault == "no batch":
        group.batch = None
    else:
        setattr(last, *FIELDS[fault])


FIELDS = {
    "on_error": ("on_error", "other"),
    "batch": ("batch_id", "z"),
    "level": ("level", 9),
    "redrive": ("redriven_from", "gone"),
}


@pytest.mark.parametrize("fault", ["ratio", "edges", "twice", "no batch", *FIELDS])
def test_a_large_group_with_a_fault_is_refused_as_any_other_and_not_gone_through_again(fault: str) -> None:
    def made() -> SubmitGroup:
        group = graph(job("g0"), *(job(f"g{at}", f"g{at - 1}") for at in range(1, 20)))
        spoil(group, fault)
        return group

    (usual,) = submitted(QueueHarness(), made(), ready=False)
    assert usual is not None
    queue, group = QueueHarness(), made()
    ready = queue.engine.prepare(group)
    for _ in ready.in_parts(5, now=queue.clock.now()):
        pass
    group.jobs = looked = Looked(group.jobs)
    assert queue.do(Submit([group], prepared={id(group): ready})).reply == [usual]
    assert looked.passes == 0


@pytest.mark.parametrize("batch", ["", "graph"])
def test_a_large_group_that_repeats_dead_letters_is_accepted_as_any_other_and_not_gone_through_again(
    batch: str,
) -> None:
    usual, ready = queue_with_others(), queue_with_others()
    jobs = [submission(f"g{at}", replace(header(batch_id=batch), index=at)) for at in range(20)]
    for at, dead in ((0, "dead-0"), (7, "dead-1")):
        jobs[at].header.redriven_from = dead
    made = SubmitGroup(jobs, batch=BatchSpec(batch) if batch else None)
    assert submitted(usual, deepcopy(made), ready=False) == [None]
    in_parts = ready.engine.prepare(made)
    for _ in in_parts.in_parts(5, now=ready.clock.now()):
        pass
    made.jobs = looked = Looked(made.jobs)
    sent = Submit([made], repeated=dead_letters(ready), prepared={id(made): in_parts})
    assert ready.do(sent).reply == [None]
    assert looked.passes == 0
    for queue in (usual, ready):
        assert [successor_of(each[2]) for each in dead_letters(queue).values()] == ["g0", "g7"]
    assert goes_on(ready, made) == goes_on(usual, made)
