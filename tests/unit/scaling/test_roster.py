"""Who is there, who comes, who goes."""

from __future__ import annotations

from aiqueue.scaling import Action, Announce, Drain, GiveBack, Kill, Roster, Start, WorkerReport

_UP, _DOWN = "worker-pool:scaled-up", "worker-pool:scaled-down"
_ILL, _REPLACED = "worker-pool:worker-unhealthy", "worker-pool:worker-replaced"


def name(number: int) -> str:
    return f"aiqueue-worker-p-{number}"


def report(worker_id: str, node: str = "n", *, draining: bool = False) -> WorkerReport:
    return WorkerReport(worker_id, 1, node, draining=draining)


def started(size: int) -> Roster:
    """A pool whose workers w0, w1 … have all spoken."""
    roster = Roster("p", size)
    roster.resize(size, {}, now=0.0)
    for number in range(size):
        roster.spoke(name(number), report(f"w{number}", f"n{number}"))
    return roster


def told(actions: list[Action]) -> list[tuple[str, dict[str, object]]]:
    return [(action.event, dict(action.data)) for action in actions if isinstance(action, Announce)]


def test_the_first_workers_are_started_and_nothing_is_said() -> None:
    assert Roster("p", 2).resize(2, {}, now=0.0) == [Start(name(0)), Start(name(1))]


def test_growth_starts_workers_and_says_so_once() -> None:
    roster = started(1)
    actions = roster.resize(3, {}, now=0.0)
    assert actions[:2] == [Start(name(1)), Start(name(2))]
    assert told(actions) == [(_UP, {"pool": "p", "previous_size": 1, "new_size": 3})]
    assert roster.resize(3, {}, now=1.0) == []


def test_only_idle_workers_go_the_newest_first() -> None:
    roster = started(4)
    actions = roster.resize(2, {"w3": 1, "w0": 0}, now=0.0)
    assert actions[:2] == [Drain(name(2)), Drain(name(1))]
    assert told(actions) == [(_DOWN, {"pool": "p", "previous_size": 4, "new_size": 2})]


def test_busy_workers_stay_however_few_are_wanted() -> None:
    roster = started(2)
    assert roster.resize(0, {"w0": 1, "w1": 5}, now=0.0) == []
    assert (roster.goal, roster.size) == (2, 2)
    assert told(roster.resize(0, {"w0": 1}, now=1.0)) == [(_DOWN, {"pool": "p", "previous_size": 2, "new_size": 1})]


def test_what_has_not_come_yet_goes_before_what_is_idle() -> None:
    roster = started(2)
    roster.resize(3, {}, now=0.0)
    assert roster.resize(2, {}, now=1.0)[0] == Drain(name(2))


def test_names_are_never_used_again() -> None:
    roster = started(2)
    roster.resize(1, {}, now=0.0)
    roster.drained(name(1))
    assert Start(name(2)) in roster.resize(2, {}, now=1.0)


def test_a_process_that_ray_started_again_gives_its_jobs_back_and_is_told_of() -> None:
    roster = started(1)
    actions = roster.spoke(name(0), report("w9"))
    assert actions[0] == GiveBack("w0", "its process died", crashed=True)
    assert told(actions) == [
        (_ILL, {"pool": "p", "worker_id": "w0", "reason": "its process died"}),
        (_REPLACED, {"pool": "p", "worker_id": "w0", "new_worker_id": "w9", "reason": "its process died"}),
    ]
    assert roster.resize(1, {}, now=0.0) == []


def test_a_worker_on_a_lost_node_gives_its_jobs_back_before_another_one_stands_in_its_place() -> None:
    roster = started(2)
    assert roster.on_node("n1") == [name(1)]
    actions = roster.fell(name(1), "its node died", crashed=False)
    assert actions[0] == GiveBack("w1", "its node died", crashed=False)
    assert [event for event, _ in told(actions)] == [_ILL]
    assert roster.size == 2
    assert [event for event, _ in told(roster.spoke(name(1), report("w9", "n2")))] == [_REPLACED]


def test_an_ill_worker_ends_its_jobs_while_another_one_takes_its_place() -> None:
    roster = started(1)
    actions = roster.replace(name(0), "too fat", hard=False)
    assert told(actions) == [(_ILL, {"pool": "p", "worker_id": "w0", "reason": "too fat"})]
    assert actions[-1] == Drain(name(0))
    assert roster.resize(1, {"w0": 3}, now=0.0) == [Start(name(1))]
    replaced = roster.spoke(name(1), report("w1"))
    assert told(replaced) == [(_REPLACED, {"pool": "p", "worker_id": "w0", "new_worker_id": "w1", "reason": "too fat"})]
    assert roster.replace(name(0), "still too fat", hard=False) == [], "it drains already"


def test_a_worker_beyond_help_is_ended_and_its_jobs_go_back_with_the_reason() -> None:
    roster = started(1)
    actions = roster.replace(name(0), "silent", hard=True)
    assert actions[-2:] == [Kill(name(0)), GiveBack("w0", "silent", crashed=True)]
    assert roster.resize(1, {}, now=0.0) == [Start(name(1))]


def test_a_draining_worker_that_gets_worse_is_ended_and_told_of_once() -> None:
    roster = started(1)
    roster.replace(name(0), "fat", hard=False)
    assert roster.replace(name(0), "fatter", hard=True) == [Kill(name(0)), GiveBack("w0", "fatter", crashed=True)]


def test_a_draining_worker_whose_process_died_is_not_brought_back() -> None:
    roster = started(2)
    roster.resize(1, {}, now=0.0)
    assert roster.spoke(name(1), report("w9")) == [Kill(name(1)), GiveBack("w1", "its process died", crashed=True)]
    assert roster.resize(1, {}, now=1.0) == []


def test_a_dead_worker_is_replaced_at_once_and_one_that_never_started_after_growing_waits() -> None:
    roster = started(1)
    assert roster.died(name(0), "gone", crashed=True, now=0.0)[0] == GiveBack("w0", "gone", crashed=True)
    assert roster.resize(1, {}, now=0.0) == [Start(name(1))]
    waits, now, number = [], 0.0, 1
    for _ in range(8):
        roster.died(name(number), "can't start", crashed=False, now=now)
        since = now
        while not (actions := roster.resize(1, {}, now=now)):
            now += 1.0
        waits.append(now - since)
        number += 1
        assert actions == [Start(name(number))]
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_the_place_of_a_dead_worker_is_not_filled_when_fewer_are_wanted() -> None:
    roster = started(2)
    roster.died(name(1), "gone", crashed=True, now=0.0)
    actions = roster.resize(1, {}, now=0.0)
    assert [action for action in actions if isinstance(action, Start)] == []


def test_a_new_manager_takes_in_what_it_finds_and_nothing_of_other_pools() -> None:
    roster = Roster("p", 3)
    roster.adopt([name(4), name(7), "aiqueue-worker-p-x-0", "aiqueue-worker-q-0", "aiqueue-queue-0"])
    assert list(roster.members) == [name(4), name(7)]
    assert roster.resize(3, {}, now=0.0) == [Start(name(8))]
    assert roster.spoke(name(4), report("w4")) == []
    assert roster.spoke(name(7), report("w7", draining=True)) == [Drain(name(7))]
    assert roster.resize(3, {}, now=0.0) == [Start(name(9))]


def test_what_workers_held_who_died_while_no_manager_ran_is_given_back_once_all_others_have_spoken() -> None:
    roster = Roster("p", 2)
    roster.adopt([name(0), name(1)])
    held = {"w0": 3, "w1": 1, "gone": 2}
    assert roster.settle(held) == []
    roster.spoke(name(0), report("w0"))
    assert roster.settle(held) == []
    roster.spoke(name(1), report("w9"))
    actions = roster.settle({**held, "stranger": 1})
    assert [action.worker_id for action in actions if isinstance(action, GiveBack)] == ["gone", "w1"]
    assert len(actions) == 2
    assert roster.settle({**held, "stranger": 1}) == [], "whoever came later has a manager of its own"


def test_a_system_that_starts_anew_takes_back_what_the_last_ones_workers_held() -> None:
    roster = Roster("p", 1)
    roster.resize(1, {}, now=0.0)
    assert [type(action) for action in roster.settle({"old": 1})] == [GiveBack]


def test_adopted_workers_that_have_yet_to_speak_may_be_busy_and_are_not_spared() -> None:
    roster = Roster("p", 3)
    roster.adopt([name(0), name(1), name(2)])
    roster.resize(3, {}, now=0.0)
    assert [a for a in roster.resize(1, {"w0": 1}, now=1.0) if isinstance(a, Drain)] == []
    roster.spoke(name(1), report("w1"))
    assert [a for a in roster.resize(1, {"w0": 1}, now=2.0) if isinstance(a, Drain)] == [Drain(name(1))]


def test_a_worker_that_says_it_can_not_work_is_told_of_once_and_stays() -> None:
    roster = started(1)
    ill = WorkerReport("w0", 1, "n", starting_s=1.0, trouble="no route to the hub")
    assert told(roster.spoke(name(0), ill)) == [
        (_ILL, {"pool": "p", "worker_id": "w0", "reason": "no route to the hub"})
    ]
    assert roster.spoke(name(0), ill) == []
    assert roster.spoke(name(0), report("w0")) == []
    assert len(told(roster.spoke(name(0), ill))) == 1, "again, after it was well"
    assert roster.size == 1


def ill_at_once(roster: Roster, worker: int, now: float, *, hard: bool) -> list[Action]:
    roster.spoke(name(worker), report(f"w{worker}"))
    roster.resize(1, {}, now=now)
    return roster.replace(name(worker), "too fat", hard=hard)


def test_workers_that_fall_ill_one_after_the_other_are_replaced_later_each_time() -> None:
    roster, now, waits = started(1), 0.0, []
    for worker in range(8):
        actions = ill_at_once(roster, worker, now, hard=True)
        since = now
        while not roster.resize(1, {}, now=now):
            now += 1.0
        waits.append(now - since)
    assert waits == [0.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    ((_, data),) = told(actions)
    assert str(data["reason"]).startswith("too fat (early failures in a row in this pool: 8; next start in")
    assert "limits in pools.p" in str(data["reason"])


def test_one_that_can_still_work_does_while_its_successor_would_have_to_wait() -> None:
    roster = started(2)
    roster.resize(2, {}, now=60.0)
    assert Drain(name(0)) in roster.replace(name(0), "too fat", hard=False)
    assert roster.resize(2, {}, now=60.0) == [Start(name(2))]
    assert Drain(name(1)) in roster.replace(name(1), "too fat", hard=False), "the second in a row"
    assert roster.resize(2, {}, now=61.0) == []
    roster.spoke(name(2), report("w2"))
    assert roster.replace(name(2), "too fat", hard=False) == [], "it stays at work"
    assert roster.resize(2, {}, now=64.0) == [Start(name(3))]
    assert Drain(name(2)) in roster.replace(name(2), "too fat", hard=False)


def test_a_worker_that_lived_long_ends_the_row() -> None:
    roster = started(1)
    for worker in range(3):
        ill_at_once(roster, worker, 10.0 * worker, hard=True)
        roster.resize(1, {}, now=10.0 * worker + 9.0)
    roster.resize(1, {}, now=100.0)
    roster.spoke(name(3), report("w3"))
    roster.resize(1, {}, now=300.0)
    roster.spoke(name(3), report("w3"))
    assert roster.replace(name(3), "too fat", hard=True)
    assert roster.resize(1, {}, now=300.0) == [Start(name(4))]


def test_a_node_that_goes_is_left_whatever_befell_others() -> None:
    roster = started(1)
    for worker in range(3):
        ill_at_once(roster, worker, 0.0, hard=True)
        roster.resize(1, {}, now=0.0) or roster.resize(1, {}, now=60.0)
    roster.spoke(name(3), report("w3", "n"))
    assert Drain(name(3), 5.0) in roster.replace(name(3), "its node is being drained", hard=False, limit_s=5.0)
