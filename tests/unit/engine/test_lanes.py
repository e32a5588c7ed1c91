"""The order of service."""

from __future__ import annotations

import pytest

from aiqueue.engine.gates import Gate
from aiqueue.engine.lanes import FEW_LANES, Lanes
from aiqueue.engine.states import JobState
from aiqueue.levels import LEVELS, AIJobPriority
from aiqueue.service import statistics
from aiqueue.testing.jobs import POOL, cancelled, completed, failed
from tests.tools.queue_harness import QueueHarness

URGENT, HIGH, MEDIUM, LOW = LEVELS


def test_jobs_of_one_level_are_served_in_the_order_of_acceptance(queue: QueueHarness) -> None:
    names = [f"job-{number}" for number in range(20)]
    for name in names:
        queue.submit(name)
        queue.clock.advance(0.001)
    assert queue.claim(20) == names


def test_jobs_accepted_in_one_call_are_served_in_its_order(queue: QueueHarness) -> None:
    queue.submit("c", "a", "b")
    assert queue.claim(3) == ["c", "a", "b"]


def test_a_higher_level_goes_first_however_late_it_came(queue: QueueHarness) -> None:
    for level in reversed(LEVELS):
        queue.submit(f"{level}-1", f"{level}-2", level=level)
        queue.clock.advance(1_000)
    assert queue.claim(8) == [f"{level}-{number}" for level in LEVELS for number in (1, 2)]


def test_lanes_of_one_pool_are_served_as_if_they_were_one(queue: QueueHarness) -> None:
    queue.submit("a", model="m-1", level=LOW)
    queue.submit("b", model="m-2", level=HIGH)
    queue.submit("c", model="m-1", level=HIGH)
    queue.submit("d", model="m-3", level=URGENT)
    assert queue.claim(4) == ["d", "b", "c", "a"]


def test_a_worker_is_given_only_jobs_of_its_pool(queue: QueueHarness) -> None:
    queue.submit("a", provider="other")
    queue.submit("b")
    assert queue.claim(5) == ["b"]
    assert queue.claim(5, worker="worker-2", pool="other-pool") == ["a"]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_claim_takes_as_many_as_there_are_slots(queue: QueueHarness, count: int) -> None:
    queue.submit("a", "b")
    assert queue.claim(count) == ["a", "b"][:count]
    assert queue.engine.ready("pool", now=0.0) == 2 - min(count, 2)


def test_a_retried_job_finds_its_old_place(queue: QueueHarness) -> None:
    queue.submit("first", "second", "third")
    queue.claim(1)
    queue.exchange(failed("first"), slots=0)
    queue.tick(5.0)
    assert queue.claim(3) == ["first", "second", "third"]


def test_a_job_of_a_lost_worker_finds_its_old_place(queue: QueueHarness) -> None:
    queue.submit("first", "second", "third")
    queue.claim(2)
    queue.lose(crashed=False)
    assert queue.claim(3) == ["first", "second", "third"]


def test_a_job_handed_back_finds_its_old_place(queue: QueueHarness) -> None:
    queue.submit("first", "second")
    queue.claim(1)
    queue.exchange(cancelled("first"), slots=0)
    assert queue.claim(2, worker="worker-2") == ["first", "second"]


def test_a_cancelled_job_is_skipped_wherever_it_stood(queue: QueueHarness) -> None:
    queue.submit("a", "b", "c", "d")
    for job_id in ("a", "c"):
        queue.cancel(job_id)
    assert queue.engine.ready("pool", now=0.0) == 2
    assert queue.claim(4) == ["b", "d"]


def test_the_oldest_is_found_behind_a_higher_level_and_past_what_was_cancelled(queue: QueueHarness) -> None:
    start = queue.clock.now()
    queue.submit("gone", level=LOW)
    queue.clock.advance(1)
    queue.submit("old", level=LOW)
    queue.clock.advance(100)
    queue.submit("new", level=URGENT)
    queue.cancel("gone")
    (lane,) = queue.engine.core.lanes
    assert lane.oldest() == start + 1
    assert [job.id for job in lane.in_order()] == ["new", "old"]


def test_an_empty_lane_has_no_head_and_no_oldest(queue: QueueHarness) -> None:
    queue.submit("a")
    queue.claim()
    (lane,) = queue.engine.core.lanes
    assert (lane.head(0.0), lane.oldest(), sum(lane.queued)) == (None, None, 0)


def test_an_unknown_pool_has_nothing() -> None:
    lanes = Lanes((3.0, 10.0, 30.0, 60.0), 0.0)
    assert (lanes.queued("pool", lambda _: 9), lanes.take("pool", 3, lambda _: 9, now=0.0)) == (0, [])


def test_counts_by_level_follow_every_move(queue: QueueHarness) -> None:
    queue.submit("a", level=URGENT)
    queue.submit("b", "c", level=AIJobPriority.LOW)
    queue.claim(1)
    queue.cancel("b")
    (lane,) = queue.engine.core.lanes
    assert lane.queued == [0, 0, 0, 1]
    assert queue.job("c").state is JobState.QUEUED


# --- many models -----------------------------------------------------------------------------------------------------


def use_models(queue: QueueHarness, wave: int, count: int) -> None:
    """Run a job for each of ``count`` models that were not seen before."""
    for number in range(count):
        queue.submit(f"{wave}-{number}", model=f"model-{wave}-{number}")
    queue.exchange(*(completed(job_id) for job_id in queue.claim(count)), slots=0)
    queue.tick(1.0)


def test_models_of_the_past_are_forgotten_and_jobs_that_wait_are_not() -> None:
    queue = QueueHarness()
    queue.submit("waits", provider="other")
    for wave in range(4):
        use_models(queue, wave, FEW_LANES)
        assert len(queue.engine.core.lanes) <= FEW_LANES + 1
        assert len(queue.engine.core.gates) <= FEW_LANES + 1
    assert queue.claim(5, pool="other-pool", worker="other") == ["waits"]


def test_models_with_nothing_waiting_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = QueueHarness()
    use_models(queue, 0, FEW_LANES - 1)
    engine, now = queue.engine, queue.clock.now()
    looks: list[str] = []

    def counting(gate: Gate, now: float) -> int:
        looks.append(gate.key.model)
        return 1

    monkeypatch.setattr(Gate, "room", counting)
    monkeypatch.setattr(Gate, "next_at", counting)
    monkeypatch.setattr(Gate, "reopen", lambda gate, now: looks.append(gate.key.model))
    queue.submit("a", model="used")
    assert engine.ready(POOL, now=now) == 1
    assert queue.claim(1) == ["a"]
    engine.next_due(now=now)
    queue.tick()
    assert looks == ["used", "used"], "to count what is ready, and to claim it"


def test_statistics_show_each_model_once_in_one_pass_over_what_runs() -> None:
    queue = QueueHarness()
    for number in range(50):
        queue.submit(f"job-{number}", model=f"model-{number}")
    queue.claim(30)
    shown = statistics.collect(queue.engine.core, statistics.RecentTimes(), now=queue.clock.now()).adapter.lanes
    assert [(lane.queued, lane.processing) for lane in shown] == [(0, 1)] * 30 + [(1, 0)] * 20
    queue.engine.core.lanes._most = 10
    queue.tick()
    shown = statistics.collect(queue.engine.core, statistics.RecentTimes(), now=queue.clock.now()).adapter.lanes
    assert sorted((lane.queued, lane.processing) for lane in shown) == [(0, 1)] * 30 + [(1, 0)] * 20
