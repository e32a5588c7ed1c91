"""Which model is served next: the loaded one first, but within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiqueue.llama.affinity import AffinityRule, Decision, Held, Waiting, decide

RULE = AffinityRule(most_passes=3, patience_s=10.0)


def held(*, running: int = 0, passes: int = 0, stays_until: float = 0.0) -> Held:
    return Held("a", running, passes, stays_until)


def test_without_a_model_the_first_that_is_asked_for_is_loaded() -> None:
    assert decide(None, [Waiting("b", 1.0), Waiting("a", 2.0)], RULE, now=3.0) == Decision(load="b")


def test_all_for_the_loaded_model_are_admitted_when_nobody_wants_another() -> None:
    assert decide(held(passes=99), [Waiting("a", 1.0)] * 9, RULE, now=1.0) == Decision(admit=9)


def test_the_loaded_model_goes_first_so_many_times() -> None:
    waiting = [Waiting("b", 0.0), *[Waiting("a", 1.0)] * 9]
    assert decide(held(running=1, passes=1), waiting, RULE, now=2.0) == Decision(admit=2)
    assert decide(held(running=1, passes=3), waiting, RULE, now=2.0) == Decision()
    assert decide(held(running=0, passes=3), waiting, RULE, now=2.0) == Decision(load="b")


def test_it_goes_first_no_longer_once_somebody_lost_patience() -> None:
    waiting = [Waiting("b", 0.0), Waiting("a", 1.0)]
    assert decide(held(running=2), waiting, RULE, now=10.0) == Decision()
    assert decide(held(running=0), waiting, RULE, now=10.0) == Decision(load="b")


def test_a_model_stays_as_long_as_its_loading_took_unless_patience_runs_out() -> None:
    waiting = [Waiting("b", 4.0)]
    assert decide(held(stays_until=9.0), waiting, RULE, now=5.0) == Decision(look_again=9.0)
    assert decide(held(stays_until=90.0), waiting, RULE, now=5.0) == Decision(look_again=14.0)
    assert decide(held(stays_until=90.0), waiting, RULE, now=14.0) == Decision(load="b")


@given(
    arrivals=st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 2.0)), min_size=1, max_size=60),
    service_s=st.floats(0.01, 1.0),
    load_s=st.floats(0.1, 5.0),
)
def test_nobody_is_passed_more_often_than_the_rule_says(
    arrivals: list[tuple[str, float]], service_s: float, load_s: float
) -> None:
    """One request at a time, a simulated clock: count who is served while another waits for the other model."""
    now, at = 0.0, 0.0
    coming = [(model, at := at + gap) for model, gap in arrivals]
    waiting: list[Waiting] = []
    state: Held | None = None
    passes, served = 0, 0
    for _ in range(10_000):
        waiting += [Waiting(model, since) for model, since in coming if since <= now]
        coming = [(model, since) for model, since in coming if since > now]
        decision = decide(state, waiting, RULE, now=now)
        if decision.load is not None:
            now += load_s
            state, passes = Held(decision.load, 0, 0, now + load_s), 0
            mine = [entry for entry in waiting if entry.model == decision.load]
            waiting = [entry for entry in waiting if entry.model != decision.load]
            served += len(mine)
            now += service_s * len(mine)
        elif decision.admit and state:
            waiting.remove(next(entry for entry in waiting if entry.model == state.model))
            served += 1
            passes = passes + 1 if waiting and any(entry.model != state.model for entry in waiting) else 0
            assert passes <= RULE.most_passes
            state = state._replace(passes=passes)
            now += service_s
        elif decision.look_again is not None:
            now = max(now, decision.look_again)
        elif coming:
            now = coming[0][1]
        else:
            break
    assert served == len(arrivals)
