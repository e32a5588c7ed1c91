"""When time alone opens a gate: the same answer as a look at every gate."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from aiqueue.engine.gates import GateKey, Gates
from aiqueue.engine.policy import GatePolicy
from aiqueue.errors import RateLimited
from aiqueue.testing.jobs import final

LIMITED = GatePolicy(requests_per_minute=3, tokens_per_minute=50, breaker_failures=2)
steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "ok", "refused", "wrong", "wait"]), st.integers(0, 40)),
    max_size=40,
)


@given(steps=steps)
def test_the_next_time_is_that_of_the_earliest_gate_whatever_happened(steps: list[tuple[str, str, int]]) -> None:
    gates, now = Gates({"limited": LIMITED}), 1_000.0
    for name, what, amount in steps:
        gate = gates.at(GateKey("limited" if name != "c" else "free", "", name), now=now)
        if what == "start" and gate.room(now):
            gate.started(now)
        elif what == "wait":
            now += amount
            gates.reopen(now)
        elif gate.in_flight and what == "ok":
            gate.used(amount, now)
            gate.succeeded(started_at=now, now=now)
        elif gate.in_flight:
            failure = RateLimited("429", retry_after_s=float(amount)).to_failure() if what == "refused" else final()
            gate.failed(failure, limit_s=60.0, started_at=now, now=now)
        if what == "wait":
            assert not [gate.key for gate in gates if 0.0 < gate.closed_until <= now]
        times = [gate.closed_until or gate.next_at(now) for gate in gates]
        assert gates.next_at(now) == min((at for at in times if at is not None), default=None)
