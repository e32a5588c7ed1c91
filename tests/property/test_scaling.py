"""Scaling under any sequence of loads, deaths and verdicts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiqueue.scaling import Announce, Drain, Kill, PoolLoad, Roster, ScalingRule, Start, WorkerReport, scaler_for
from aiqueue.scaling.roster import Stage

rules = st.builds(
    lambda policy, least, more, first, slots: ScalingRule(
        policy=policy,
        min_workers=least,
        max_workers=least + more,
        default_workers=min(least + more, least + first),
        slots=slots,
        up_cooldown_s=0.0,
        down_cooldown_s=3.0,
    ),
    st.sampled_from(["threshold", "sla"]),
    st.integers(0, 3),
    st.integers(1, 20),
    st.integers(0, 20),
    st.integers(1, 64),
)
loads = st.builds(
    lambda queued, waited, running, done: PoolLoad(queued, waited, running, done, done * 0.7),
    st.lists(st.integers(0, 2_000), min_size=4, max_size=4),
    st.lists(st.floats(0, 500), min_size=4, max_size=4),
    st.integers(0, 300),
    st.integers(0, 10_000),
)


@given(rules, st.lists(loads, max_size=30))
def test_the_size_stays_inside_its_limits_and_no_job_waits_for_nobody(rule: ScalingRule, seen: list[PoolLoad]) -> None:
    scaler, size = scaler_for(rule), rule.default_workers
    for second, load in enumerate(seen):
        size = scaler.target(load, size, now=float(second))
        assert rule.min_workers <= size <= rule.max_workers
        assert size > 0 or load.depth == 0


@given(rules, loads)
def test_more_urgent_work_never_calls_for_fewer_workers(rule: ScalingRule, load: PoolLoad) -> None:
    more = PoolLoad([load.queued[0] + 500, *load.queued[1:]], load.waited_s, load.running, load.completed, load.busy_s)
    first = scaler_for(rule).target(load, rule.default_workers, now=0.0)
    assert scaler_for(rule).target(more, rule.default_workers, now=0.0) >= first


steps = st.lists(
    st.one_of(
        st.tuples(st.just("resize"), st.integers(0, 6)),
        st.tuples(st.sampled_from(["speak", "fall", "die", "soft", "hard", "drained", "restart"]), st.integers(0, 12)),
    ),
    max_size=60,
)


@given(steps)
def test_the_roster_never_stops_a_busy_worker_to_shrink_and_comes_to_its_size(steps: list[tuple[str, int]]) -> None:
    """Odd-numbered processes are busy."""
    roster, now, made = Roster("p", 2), 0.0, 0
    names: set[str] = set()
    target = 2
    for what, number in steps:
        now += 1.0
        name = f"{roster.prefix}{number}"
        held = {m.worker_id: 1 for m in roster.members.values() if m.worker_id and int(m.worker_id) % 2}
        stages = {m.name: (m.stage, m.worker_id) for m in roster.members.values()}
        if what == "resize":
            target = number
            actions = roster.resize(target, held, now=now)
            stopped = [stages[a.name] for a in actions if isinstance(a, Drain)]
            assert not any(stage is Stage.READY and worker_id in held for stage, worker_id in stopped)
            assert not any(isinstance(a, Kill) for a in actions)
            told = [a.data for a in actions if isinstance(a, Announce)]
            assert [d["new_size"] for d in told] == [roster.goal] * len(told)
        elif what == "speak" or what == "restart":
            member = roster.members.get(name)
            made += what == "restart" or (member is not None and not member.worker_id)
            worker_id = str(made) if what == "restart" or not (member and member.worker_id) else member.worker_id
            actions = roster.spoke(name, WorkerReport(worker_id, 1, "n"))
        elif what == "fall":
            actions = roster.fell(name, "x", crashed=True)
        elif what == "die":
            actions = roster.died(name, "x", crashed=True, now=now)
        elif what == "drained":
            actions = []
            if name in roster.members and roster.members[name].stage is Stage.DRAINING:
                roster.drained(name)
        else:
            actions = roster.replace(name, "x", hard=what == "hard")
        fresh = [a.name for a in actions if isinstance(a, Start)]
        assert not names.intersection(fresh), "a name was used twice"
        names.update(fresh)
    for name in list(roster.members):
        roster.spoke(name, WorkerReport(f"{1_000 + 2 * len(name)}{roster.members[name].worker_id}0", 1, "n"))
    roster.resize(target, {}, now=now + 100.0)
    assert (roster.goal, roster.size) == (target, target)
