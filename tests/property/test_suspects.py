"""Jobs that kill their workers among others that do not, in any mixture."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.protocol import BatchSpec, SubmitGroup
from aiqueue.testing.jobs import cancelled, completed, failed, header, submission
from tests.tools.queue_harness import POLICY, QueueHarness

OUTCOMES = {"completed": completed, "failed": failed, "handed back": cancelled}
MAX = POLICY.retry.max_crashes


@settings(max_examples=200)
@given(
    jobs=st.integers(1, 40),
    guilty=st.sets(st.integers(0, 39), max_size=4),
    slots=st.integers(1, 16),
    workers=st.integers(1, 4),
    data=st.data(),
)
def test_every_killer_is_found_within_a_bounded_number_of_deaths_and_no_innocent_is_given_up(
    jobs: int, guilty: set[int], slots: int, workers: int, data: st.DataObject
) -> None:
    queue = QueueHarness()
    queue.submit(*(f"job-{number}" for number in range(jobs)))
    killers = {f"job-{number}" for number in guilty if number < jobs}
    generation, deaths, steps = dict.fromkeys(range(workers), 0), 0, 0
    while queue.engine.core.live:
        steps += 1
        assert steps < 50 * (jobs + 10) * workers, "nothing moves any more"
        place = data.draw(st.integers(0, workers - 1))
        worker = f"worker-{place}.{generation[place]}"
        queue.exchange(worker=worker, slots=slots)
        held = next(each.held for each in queue.engine.core.leases if each.id == worker)
        some = data.draw(st.sets(st.sampled_from(sorted(held)), min_size=1)) if held else set()
        if killers & some:
            queue.lose(worker)
            generation[place] += 1
            deaths += 1
        else:
            queue.exchange(
                *(completed(job_id, held[job_id].attempt) for job_id in sorted(some)), worker=worker, slots=0
            )
        if data.draw(st.integers(0, 20)) == 0:
            queue.restart()
    states = {name: queue.state_of(name) for name in (f"job-{number}" for number in range(jobs))}
    assert {name for name, state in states.items() if state == "dead_letter"} == killers
    assert set(states.values()) <= {"dead_letter", "completed"}
    assert deaths <= len(killers) * (MAX + math.ceil(math.log2(slots)) + 1)


@settings(max_examples=80)
@given(
    jobs=st.integers(1, 12),
    guilty=st.sets(st.integers(0, 11), max_size=2),
    slots=st.integers(1, 8),
    batch=st.booleans(),
    data=st.data(),
)
def test_a_suspect_whose_attempt_ends_while_its_worker_lives_is_none_any_more(
    jobs: int, guilty: set[int], slots: int, batch: bool, data: st.DataObject
) -> None:
    queue = QueueHarness()
    names = [f"job-{number}" for number in range(jobs)]
    of_batch = header(batch_id="b" if batch else "")
    submitted = [submission(name, replace(of_batch, index=at)) for at, name in enumerate(names)]
    queue.submit_groups(SubmitGroup(submitted, batch=BatchSpec("b", max_concurrency=3) if batch else None))
    killers = {f"job-{number}" for number in guilty if number < jobs}
    deaths, steps, retried = 0, 0, Counter[str]()
    while queue.engine.core.live:
        steps += 1
        assert steps < 400 * (jobs + 10), "nothing moves any more"
        worker = f"worker-{deaths}"
        queue.exchange(worker=worker, slots=slots)
        held = next(each.held for each in queue.engine.core.leases if each.id == worker)
        if not held:
            queue.tick(5.0)
            continue
        some = data.draw(st.sets(st.sampled_from(sorted(held)), min_size=1))
        if killers & some:
            queue.lose(worker)
            deaths += 1
            continue
        for job_id in sorted(some):
            job, suspected = held[job_id], held[job_id].lane.company
            may_fail = retried[job_id] < job.max_retries
            how = data.draw(st.sampled_from(["completed", "handed back", *(["failed"] if may_fail else [])]))
            retried[job_id] += how == "failed"
            queue.exchange(OUTCOMES[how](job_id, job.attempt), worker=worker, slots=0)
            if how != "completed":
                assert queue.job(job_id).lane.company == (0 if how == "failed" else suspected)
        if data.draw(st.integers(0, 20)) == 0:
            queue.restart()
    assert {name for name in names if queue.state_of(name) != "completed"} == killers
    assert deaths <= len(killers) * (MAX + math.ceil(math.log2(slots)) + 1)
