"""A worker died while it ran several jobs: which of them was it?"""

from __future__ import annotations

from dataclasses import replace

from aiqueue.engine import EnginePolicy
from aiqueue.errors import PayloadUnreadable
from aiqueue.levels import AIJobPriority
from aiqueue.testing.jobs import POOL, completed, failed, retryable
from tests.tools.queue_harness import POLICY, WORKER, QueueHarness, ids

FIVE = ("killer", "b", "c", "d", "e")


def ends_all(queue: QueueHarness, worker: str = WORKER, *, slots: int = 8) -> list[str]:
    """Let a worker complete all that it holds; return what it is given next."""
    held = next(each.held for each in queue.engine.core.leases if each.id == worker)
    done = [completed(job.id, job.attempt) for job in held.values()]
    return ids(queue.exchange(*done, worker=worker, slots=slots).claims)


def test_a_job_that_kills_its_worker_is_found_and_takes_no_other_with_it(queue: QueueHarness) -> None:
    queue.submit(*FIVE)
    deaths = 0
    while queue.is_live("killer"):
        worker = f"worker-{deaths}"
        given = queue.claim(8, worker=worker)
        while "killer" not in given:
            given = ends_all(queue, worker)
        queue.lose(worker)
        deaths += 1
    assert (queue.state_of("killer"), deaths) == ("dead_letter", 5)  # one of five, one of two, three alone
    queue.exchange(worker="last")
    while list(queue.engine.core.live):
        ends_all(queue, "last")
    assert {queue.state_of(job) for job in FIVE[1:]} == {"completed"}


def test_half_of_those_that_died_together_run_together_and_nothing_beside_them(queue: QueueHarness) -> None:
    queue.submit(*(f"job-{number}" for number in range(8)))
    queue.claim(8)
    queue.submit("later")
    queue.lose()
    assert queue.claim(8, worker="worker-2") == ["job-0", "job-1", "job-2", "job-3"]
    assert ids(queue.exchange(completed("job-0", 2), worker="worker-2", slots=8).claims) == []
    assert queue.claim(8, worker="worker-3") == ["later"], "the others go on"
    queue.lose("worker-2")
    assert queue.claim(8, worker="worker-4") == ["job-1"], "three died: each is alone next"


def test_a_suspect_that_fails_by_itself_runs_beside_others_from_then_on(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim(2)
    queue.lose()
    assert queue.claim(8, worker="worker-2") == ["a"]
    queue.exchange(failed("a", 2), worker="worker-2", slots=0)
    queue.submit("c", "d")
    assert queue.claim(8, worker="worker-2") == ["b"]
    queue.exchange(completed("b", 2), worker="worker-2", slots=0)
    queue.tick(5.0)
    assert queue.claim(8, worker="worker-2") == ["a", "c", "d"]


def test_a_suspect_that_its_provider_would_not_run_yet_stays_one(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim(2)
    queue.lose()
    assert queue.claim(8, worker="worker-2") == ["a"]
    queue.exchange(failed("a", 2, retryable(retry_after_s=1.0)), worker="worker-2", slots=0)
    assert queue.job("a").lane.company == 1


def test_a_suspect_that_could_not_be_sent_to_its_worker_stays_one(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim(2)
    queue.lose()
    assert queue.claim(8, worker="worker-2") == ["a"]
    unreadable = PayloadUnreadable("its row can't be read").to_failure()
    queue.exchange(failed("a", 2, unreadable), worker="worker-2", slots=0)
    assert queue.job("a").lane.company == 1


def test_a_worker_that_runs_a_suspect_is_given_nothing_beside_it_also_after_it_wanted_nothing_for_a_while(
    queue: QueueHarness,
) -> None:
    queue.submit("suspect")
    queue.claim(1)
    queue.lose()
    assert queue.claim(4, worker="worker-2") == ["suspect"]
    queue.exchange(worker="worker-2", slots=0)
    queue.submit("later")
    assert ids(queue.exchange(worker="worker-2", slots=4).claims) == []
    assert ids(queue.exchange(completed("suspect", 2), worker="worker-2", slots=4).claims) == ["later"]
    assert not queue.engine.core.isolated


def test_innocents_that_were_run_again_are_forgotten_as_suspects_when_they_end(queue: QueueHarness) -> None:
    queue.submit("a", "b", "c", "d")
    queue.claim(4)
    queue.lose()
    assert queue.claim(4, worker="worker-2") == ["a", "b"]
    assert ends_all(queue, "worker-2") == ["c", "d"]
    queue.submit("e", "f", "g")
    assert ends_all(queue, "worker-2") == ["e", "f", "g"]
    assert queue.engine.core.quarantine == {}


def test_a_machine_that_is_lost_accuses_nobody(queue: QueueHarness) -> None:
    names = [f"job-{number}" for number in range(64)]
    queue.submit(*names)
    queue.claim(64)
    queue.lose(crashed=False)
    assert queue.claim(64, worker="worker-2") == names
    assert {queue.job(name).crashes for name in names} == {1}


def test_a_job_whose_every_machine_is_lost_ends_all_the_same(queue: QueueHarness) -> None:
    queue.submit("a")
    for number in range(6):  # three that say nothing, and three that count
        assert queue.claim(worker=f"worker-{number}") == ["a"]
        queue.lose(f"worker-{number}", crashed=False)
    assert queue.state_of("a") == "dead_letter"


def test_the_worker_that_holds_least_is_emptied_for_suspects_and_the_others_work_on(queue: QueueHarness) -> None:
    queue.submit("long-1", "long-2", "long-3")
    queue.claim(2, worker="busy")
    queue.claim(1, worker="less-busy")
    queue.submit("a", "b")
    queue.claim(2, worker="dies")
    queue.lose("dies")
    queue.submit("c", "d")
    assert queue.claim(4, worker="busy") == ["c", "d"]
    assert queue.claim(4, worker="less-busy") == [], "it is being emptied"
    assert ends_all(queue, "less-busy") == ["a"]


def test_a_worker_that_is_empty_takes_the_suspects_of_one_that_is_not_yet(queue: QueueHarness) -> None:
    queue.submit("long", "a", "b")
    queue.claim(1, worker="busy")
    queue.claim(2, worker="dies")
    queue.lose("dies")
    assert queue.claim(1, worker="busy") == []
    assert queue.claim(4, worker="new") == ["a"]
    queue.submit("c")
    assert queue.claim(1, worker="busy") == ["c"]


def test_a_pool_of_one_worker_runs_suspects_between_its_other_jobs(queue: QueueHarness) -> None:
    queue.submit("a", "b")
    queue.claim(2)
    queue.lose()
    queue.submit("urgent-1", level=AIJobPriority.URGENT)
    assert queue.claim(2, worker="only") == ["urgent-1"], "an urgent job goes before suspects of a lower level"
    queue.submit("urgent-2", level=AIJobPriority.URGENT)
    queue.submit("later")
    assert ends_all(queue, "only", slots=1) == ["urgent-2"]
    assert ends_all(queue, "only") == ["a"]
    queue.submit("urgent-3", level=AIJobPriority.URGENT)
    assert queue.claim(4, worker="only") == [], "it waits for one group of suspects"
    assert ends_all(queue, "only", slots=1) == ["urgent-3"]
    assert ends_all(queue, "only") == ["b"]
    assert ends_all(queue, "only") == ["later"]


def test_urgent_jobs_that_never_stop_do_not_keep_suspects_waiting_for_ever() -> None:
    queue = QueueHarness(replace(POLICY, ageing=2.0))
    queue.submit("low", level=AIJobPriority.LOW)
    queue.claim()
    queue.lose()
    for second in range(500):
        queue.submit(f"urgent-{second}", level=AIJobPriority.URGENT)
        if "low" in queue.claim(1, worker="only"):
            return
        ends_all(queue, "only", slots=0)
        queue.clock.advance(1.0)
    raise AssertionError("it waited for ever")


def test_suspects_behind_a_closed_gate_keep_no_worker_from_its_work() -> None:
    gates = {"sim": replace(POLICY.gates["sim"], max_concurrent=2)}
    queue = QueueHarness(EnginePolicy(routes={**POLICY.routes, "more": POLICY.routes["sim"]}, gates=gates))
    queue.submit("a", "b")
    queue.claim(2)
    queue.submit("c", "d")
    queue.lose()
    assert queue.claim(2, worker="worker-2") == ["a"]
    ends_all(queue, "worker-2", slots=0)
    assert queue.claim(4, worker="worker-3") == ["b"]
    assert queue.claim(1, worker="worker-4") == ["c"], "the second call at once"
    assert queue.claim(1, worker="worker-5") == [], "there is no third"


def test_suspects_and_their_worker_survive_a_restart(queue: QueueHarness) -> None:
    queue.submit("a", "b", "c", "d", "e", "f")
    queue.claim(6)
    queue.lose()
    queue.claim(6, worker="worker-2")
    before = queue.engine.fingerprint()
    queue.restart()
    assert queue.engine.fingerprint() == before
    queue.submit("later")
    assert queue.claim(6, worker="worker-2") == [], "it runs suspects"
    assert queue.claim(6, worker="worker-3") == ["later"]
    assert ends_all(queue, "worker-2") == ["d", "e", "f"]


def test_a_draining_worker_is_not_waited_for(queue: QueueHarness) -> None:
    queue.submit("long", "a", "b")
    queue.claim(1, worker="old")
    queue.claim(2, worker="dies")
    queue.lose("dies")
    assert queue.claim(1, worker="old") == []
    queue.exchange(worker="old", slots=0)
    queue.submit("x", level=AIJobPriority.URGENT)
    assert queue.claim(1, worker="busy") == ["x"]
    assert ends_all(queue, "busy") == ["a"]


def test_suspects_count_as_work_that_waits(queue: QueueHarness) -> None:
    queue.submit("a", "b", "c", "d")
    queue.claim(4)
    queue.lose()
    assert queue.engine.ready(POOL, now=queue.clock.now()) == 4
    queue.claim(4, worker="worker-2")
    assert queue.engine.ready(POOL, now=queue.clock.now()) == 0, "nobody else may be given the other two"
