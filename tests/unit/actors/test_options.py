"""What Ray is asked to reserve."""

from __future__ import annotations

import pytest
import ray

from actors.options import bundle, demand, least_cpus
from aiqueue.config import PoolConfig


def pool(**settings: float | dict[str, float]) -> PoolConfig:
    return PoolConfig.model_validate({"providers": ["a"], **settings})


def nodes(monkeypatch: pytest.MonkeyPatch, *cpus: float) -> None:
    found = [{"Alive": True, "Resources": {"CPU": count} if count else {}} for count in cpus]
    monkeypatch.setattr(ray, "nodes", lambda: [*found, {"Alive": False, "Resources": {"CPU": 64.0}}])


@pytest.mark.parametrize("cpus", [(2.0, 2.0), (0.0,), (0.0, 4.0), (8.0,)])
def test_in_a_cluster_a_worker_asks_for_something_or_no_node_would_be_added_for_it(
    monkeypatch: pytest.MonkeyPatch, cpus: tuple[float, ...]
) -> None:
    nodes(monkeypatch, *cpus)
    assert 0 < least_cpus() <= 0.1


def test_on_one_small_machine_a_worker_never_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes(monkeypatch, 2.0)
    assert least_cpus() == 0.0


def test_what_a_pool_says_counts_and_other_demand_is_enough() -> None:
    for said in (0.0, 2.0):
        assert demand(pool(num_cpus=said), least_cpus=0.05)["num_cpus"] == said
    for other in ({"num_gpus": 1}, {"memory_mb": 100}, {"resources": {"x": 1.0}}):
        assert demand(pool(**other), least_cpus=0.05)["num_cpus"] == 0.0
    assert demand(pool(), least_cpus=0.05)["num_cpus"] == 0.05


def test_room_is_kept_for_a_worker_whose_pool_says_nothing() -> None:
    assert bundle(pool(prewarm_workers=2), least_cpus=0.05) == {"CPU": 0.05}
    assert bundle(pool(num_cpus=0)) == {}
