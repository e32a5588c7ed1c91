"""From a pool's settings to its scaling rule and health limits."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from aiqueue.config import Settings
from aiqueue.pools import health_limits, most_passes, scaling_rule, slots_of
from aiqueue.scaling import ScalingRule
from aiqueue.scaling.presets import PRESETS


def settings(kind: str = "simulated", preset: str | None = None, **pool: Any) -> Settings:
    provider = {"kind": kind, **({"model_path": "m.gguf"} if kind == "llama_cpp" else {})}
    return Settings(providers={"a": provider}, pools={"p": {"providers": ["a"], **pool}}, preset=preset)


def test_a_pool_that_says_nothing_has_the_specifications_numbers() -> None:
    rule = scaling_rule(settings(), "p")
    assert (rule.min_workers, rule.max_workers, rule.default_workers, rule.auto_scale) == (1, 50, 10, True)
    assert (rule.scale_up_threshold, rule.scale_down_threshold) == (100, 10)
    assert (rule.scale_up_step, rule.scale_down_step, rule.policy) == (2, 1, "threshold")
    assert settings().pools["p"].health_check_interval_ms == 60_000
    assert (rule.slots, rule.sla_s) == (64, (3.0, 10.0, 30.0, 60.0))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_and_the_pools_own_numbers_win(preset: str) -> None:
    for made in (settings(preset=preset), settings(**{"preset": preset})):
        rule = scaling_rule(made, "p")
        assert {name: getattr(rule, name) for name in PRESETS[preset]} == dict(PRESETS[preset])
    assert scaling_rule(settings(preset=preset, max_workers=33), "p").max_workers == 33


def test_a_pools_own_preset_goes_before_the_systems() -> None:
    made = Settings(
        providers={"a": {"kind": "simulated"}},
        pools={"p": {"providers": ["a"], "preset": "development"}},
        preset="production-high-traffic",
    )
    assert scaling_rule(made, "p").max_workers == 5


def test_a_fixed_number_of_workers_is_not_scaled() -> None:
    rule = scaling_rule(settings(workers=3, preset="production-high-traffic"), "p")
    assert (rule.auto_scale, rule.min_workers, rule.default_workers, rule.max_workers) == (False, 3, 3, 3)


def test_the_first_size_keeps_inside_limits_of_which_one_was_given() -> None:
    assert scaling_rule(settings(max_workers=4), "p").default_workers == 4
    assert scaling_rule(settings(min_workers=12), "p").default_workers == 12


def test_workers_that_hold_a_model_begin_with_the_fewest_and_no_memory_limit() -> None:
    assert scaling_rule(settings("llama_cpp"), "p").default_workers == 1
    assert scaling_rule(settings("llama_cpp", min_workers=0), "p").default_workers == 0
    assert scaling_rule(settings("llama_cpp", default_workers=3), "p").default_workers == 3
    assert health_limits(settings("llama_cpp"), "p").max_memory_mb is None
    assert health_limits(settings("llama_cpp", max_memory_mb=9_000), "p").max_memory_mb == 9_000


def test_other_workers_have_the_specifications_memory_limit_and_zero_means_none() -> None:
    assert health_limits(settings(), "p").max_memory_mb == 512
    assert health_limits(settings(max_memory_mb=0), "p").max_memory_mb is None


def test_limits_that_cross_are_refused_when_the_settings_are_read() -> None:
    with pytest.raises(pydantic.ValidationError, match="pool p: min_workers is 60 but max_workers 50; give both"):
        settings(min_workers=60)


def test_the_rule_survives_the_way_to_an_actor() -> None:
    made = settings(preset="production-low-traffic", scale_down_cooldown_ms=500, scaling_policy="sla")
    again = Settings.model_validate_json(made.model_dump_json())
    rule = scaling_rule(again, "p")
    assert rule == scaling_rule(made, "p")
    assert (rule.down_cooldown_s, rule.policy) == (0.5, "sla")
    assert rule != ScalingRule()


def test_a_worker_has_64_slots_or_those_that_its_pool_or_its_model_gives() -> None:
    assert slots_of(settings(), "p") == (64, 0)
    assert slots_of(settings(slots=8, urgent_slots=1), "p") == (8, 1)
    assert slots_of(settings("llama_cpp"), "p") == (8, 0)
    model = {"kind": "llama_cpp", "model_path": "m.gguf", "llama": {"parallel": 4, "urgent_slots": 1}}
    assert slots_of(Settings(providers={"a": model}, pools={"p": {"providers": ["a"]}}), "p") == (4, 1)


@pytest.mark.parametrize("wrong", [{"slots": 3}, {"urgent_slots": 1}])
def test_a_pool_cannot_have_other_slots_than_its_model(wrong: dict[str, int]) -> None:
    with pytest.raises(
        pydantic.ValidationError, match=r"pool p: .* set parallel and urgent_slots of providers.a.llama"
    ):
        settings("llama_cpp", **wrong)


def test_a_pool_must_leave_a_slot_for_jobs_that_are_not_urgent() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"urgent_slots \(8\) must leave one of its 8 slots"):
        settings(slots=8, urgent_slots=8)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({"models": ["a", "b"]}, {"p": 32}),
        ({"models": ["a", "b"], "llama": {"swap_after_jobs": 5}}, {"p": 5}),
        ({"models": ["a"]}, {}),
        ({"models": ["a", "b"], "model_path": "m.gguf"}, {}),
    ],
)
def test_only_workers_that_hold_one_of_several_models_keep_to_it(
    provider: dict[str, Any], expected: dict[str, int]
) -> None:
    files = {name: {"path": f"{name}.gguf"} for name in "ab"}
    found = Settings(
        providers={"x": {"kind": "llama_cpp", **provider}, "y": {"kind": "simulated", "models": ["a", "b"]}},
        pools={"p": {"providers": ["x"]}, "q": {"providers": ["y"]}},
        models={"files": files},
    )
    assert most_passes(found) == expected
