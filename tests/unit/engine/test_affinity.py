"""Workers that hold one model at a time are given jobs for it first, within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.engine.affinity import Affinity, Candidate
from aiqueue.levels import AIJobPriority
from aiqueue.testing.jobs import POOL, completed
from tests.tools.queue_harness import POLICY, QueueHarness


def one(model: str, seq: int, *, level: int = 2) -> Candidate:
    return Candidate(level, float(seq), seq, level, "abc".index(model), model)


@pytest.fixture
def queue() -> QueueHarness:
    """A queue whose workers hold one model at a time; two jobs may pass an older one."""
    return QueueHarness(replace(POLICY, most_passes={POOL: 2}))


def test_a_worker_keeps_to_the_model_of_its_first_job(queue: QueueHarness) -> None:
    for number in range(3):
        queue.submit(f"a{number}", model="a")
        queue.submit(f"b{number}", model="b")
    assert queue.claim(3) == ["a0", "a1", "a2"]


def test_another_worker_takes_the_oldest_of_the_other_model_and_neither_changes(queue: QueueHarness) -> None:
    for number in range(8):
        queue.submit(f"a{number}", model="a")
        queue.submit(f"b{number}", model="b")
    assert queue.claim(1) == ["a0"]
    assert queue.claim(1, worker="worker-2") == ["b0"]
    assert queue.claim(7) == [f"a{number}" for number in range(1, 8)], "others see to the older jobs"
    assert queue.claim(7, worker="worker-2") == [f"b{number}" for number in range(1, 8)]


def test_a_job_whose_model_nobody_is_on_is_passed_so_many_times(queue: QueueHarness) -> None:
    queue.submit("a0", model="a")
    queue.submit("b0", model="b")
    queue.submit("a1", "a2", "a3", model="a")
    assert queue.claim(5) == ["a0", "a1", "a2", "b0", "a3"]


def test_a_worker_without_jobs_for_its_model_takes_the_oldest(queue: QueueHarness) -> None:
    queue.submit("a0", model="a")
    queue.submit("b0", model="b")
    queue.submit("c0", model="c")
    assert queue.claim(3) == ["a0", "b0", "c0"]


def test_a_higher_level_goes_first_whatever_its_model(queue: QueueHarness) -> None:
    queue.submit("a0", "a1", model="a")
    assert queue.claim(1) == ["a0"]
    queue.submit("b0", model="b", level=AIJobPriority.HIGH)
    assert queue.claim(2) == ["b0", "a1"]


def test_what_a_worker_that_was_lost_is_on_is_served_by_nobody(queue: QueueHarness) -> None:
    queue.submit("a0", model="a")
    queue.submit("b0", model="b")
    assert queue.claim(1) == ["a0"]
    assert queue.claim(1, worker="worker-2") == ["b0"]
    queue.submit("b1", model="b")
    queue.submit("a1", "a2", "a3", model="a")
    queue.lose("worker-2", crashed=False)
    assert queue.claim(5) == ["a1", "a2", "b0", "b1", "a3"]


def test_a_restart_of_the_queue_knows_the_models_of_workers_that_run_something(queue: QueueHarness) -> None:
    queue.submit("a0", model="a")
    assert queue.claim(1) == ["a0"]
    queue.submit("b0", model="b")
    queue.submit("a1", model="a")
    queue.restart()
    assert queue.claim(1) == ["a1"]
    queue.exchange(completed("a0"), completed("a1"))


def test_a_pool_without_affinity_is_served_in_the_order_of_acceptance() -> None:
    queue = QueueHarness(replace(POLICY, most_passes={"another": 2}))
    queue.submit("a0", model="a")
    queue.submit("b0", model="b")
    queue.submit("a1", model="a")
    assert queue.claim(3) == ["a0", "b0", "a1"]


def test_workers_are_known_by_the_model_of_their_last_job(queue: QueueHarness) -> None:
    queue.submit("a0", model="a")
    queue.claim(1)
    queue.exchange(worker="worker-2", slots=0)
    assert queue.engine.by_model(["worker-1", "worker-2", "unknown"]) == {"a": ["worker-1"], "": ["worker-2"]}
    queue.submit("a1", "a2", model="a")
    queue.submit("b0", model="b")
    assert [queue.engine.ready_alike(POOL, model, now=0.0) for model in ("a", "b", "")] == [2, 1, 0]


@given(
    models=st.lists(st.sampled_from("ab"), min_size=1, max_size=60),
    most_passes=st.integers(0, 5),
    gap=st.integers(1, 6),
)
def test_no_job_is_passed_by_more_than_the_rule_says(models: list[str], most_passes: int, gap: int) -> None:
    """One worker and two models; ``gap`` jobs are accepted before each that is served."""
    affinity, waiting, served = Affinity(most_passes), list[tuple[int, str]](), list[int]()
    coming = list(enumerate(models))
    while coming or waiting:
        waiting, coming = waiting + coming[:gap], coming[gap:]
        heads = [one(model, min(seq for seq, its in waiting if its == model)) for model in {its for _, its in waiting}]
        chosen = affinity.choose(heads, served=())
        assert chosen.model == affinity.model
        waiting.remove((chosen.seq, chosen.model))
        served.append(chosen.seq)
    assert sorted(served) == list(range(len(models)))
    for at, seq in enumerate(served):
        passed_by = [younger for younger in served[:at] if younger > seq]
        assert len(passed_by) <= most_passes, f"job {seq} of {models} was served after {passed_by}"
