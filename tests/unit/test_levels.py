"""The four levels."""

from __future__ import annotations

import pytest

from aiqueue.levels import DEFAULT_SLA_MS, LEVELS, NUMERIC_ALIASES, AIJobPriority


def test_levels_are_ranked_in_the_order_of_service() -> None:
    assert [level.value for level in LEVELS] == ["urgent", "high", "medium", "low"]
    assert [level.rank for level in LEVELS] == [0, 1, 2, 3]


def test_every_level_has_a_number_and_an_sla_and_higher_ones_are_faster() -> None:
    assert [NUMERIC_ALIASES[number] for number in (15, 10, 5, 1)] == list(LEVELS)
    assert [DEFAULT_SLA_MS[level] for level in LEVELS] == [3_000, 10_000, 30_000, 60_000]


@pytest.mark.parametrize(("number", "level"), NUMERIC_ALIASES.items())
def test_a_number_stands_for_its_level(number: int, level: AIJobPriority) -> None:
    assert AIJobPriority(number) is level


@pytest.mark.parametrize("value", [0, 2, 16, "asap", None, 5.5])
def test_anything_else_is_no_level(value: object) -> None:
    with pytest.raises(ValueError, match="is not a valid AIJobPriority"):
        AIJobPriority(value)
