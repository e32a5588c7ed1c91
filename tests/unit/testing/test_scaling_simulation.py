"""Both policies on the load shapes; `make bench ARGS=scaling` prints the whole table."""

from __future__ import annotations

import pytest

from aiqueue.scaling import ScalingRule
from aiqueue.testing.scaling_simulation import SHAPES, Simulation

_RULE = {"slots": 8}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", ["threshold", "sla"])
def test_every_job_ends_and_the_limits_hold(shape: str, policy: str) -> None:
    outcome = Simulation(ScalingRule(policy=policy, **_RULE)).run(SHAPES[shape])
    print(f"{shape} {policy}: {outcome}")
    assert outcome.jobs > 1_000
    assert outcome.late <= outcome.jobs // 20
    assert outcome.most_workers <= 50


@pytest.mark.parametrize("shape", ["burst", "ramp", "on/off"])
def test_by_the_sla_a_changing_load_costs_fewer_worker_seconds(shape: str) -> None:
    threshold, sla = (Simulation(ScalingRule(policy=name, **_RULE)).run(SHAPES[shape]) for name in ("threshold", "sla"))
    assert sla.worker_seconds < 0.8 * threshold.worker_seconds


def test_a_pool_of_one_fixed_worker_is_late_so_the_comparison_can_tell() -> None:
    rule = ScalingRule(auto_scale=False, default_workers=1, **_RULE)
    outcome = Simulation(rule).run(SHAPES["burst"])
    assert outcome.late > outcome.jobs // 2
    assert outcome.most_workers == 1
