"""How much the engine looks at: no more than what something happens to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from aiqueue.engine import Submit, line
from aiqueue.engine.gates import Gates
from aiqueue.errors import RateLimited
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import failed, header, submission
from tests.tools.queue_harness import QueueHarness


class CountedDict(dict[str, str]):
    """Counts how often all of it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        CountedDict.passes += 1
        return super().__iter__()

    def keys(self):  # type: ignore[no-untyped-def]  # what a set is made from
        CountedDict.passes += 1
        return super().keys()


def test_a_graph_of_many_steps_goes_through_what_is_known_once(queue: QueueHarness) -> None:
    jobs = [
        submission(
            f"b{n}",
            replace(header(batch_id="b"), index=n, needs=(Need(f"b{n - 1}" if n else "earlier"),), on_error="skip"),
        )
        for n in range(200)
    ]
    ended = CountedDict({"earlier": "completed"})
    CountedDict.passes = 0
    assert queue.do(Submit([SubmitGroup(jobs, batch=BatchSpec("b", "chain"))], ended=ended)).reply == [None]
    assert CountedDict.passes <= 2


def test_a_closing_gate_looks_at_no_fail_fast_job_of_another_model(
    queue: QueueHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.submit("first", model="other")
    queue.claim(1)
    queue.submit(*(f"job-{n}" for n in range(1_000)), fail_fast=True)
    looks = [0]
    of = Gates.of

    def counting(gates: Gates, lane: object, **more: float) -> object:
        looks[0] += 1
        return of(gates, lane, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Gates, "of", counting)
    refused = RateLimited("429", status=429, retry_after_s=60.0).to_failure()
    queue.exchange(failed("first", failure=refused), slots=0)
    assert looks[0] < 20
    assert queue.ended == {}


def test_jobs_that_expire_in_the_order_they_came_are_never_all_gone_through(
    queue: QueueHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Counted(deque[object]):
        def __init__(self, *entries: Iterator[object]) -> None:
            super().__init__(*entries)
            made.extend(self)

    monkeypatch.setattr(line, "deque", Counted)
    queue.submit(*(f"job-{n:04}" for n in range(2_000)), expires_in_ms=1_000)
    queue.tick(2.0)
    while queue.engine.core.live:
        queue.tick()
    assert not made, "a line was made anew of those that had not left"
