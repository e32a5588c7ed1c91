"""When a worker is ill."""

from __future__ import annotations

import pytest

from aiqueue.scaling import Health, HealthLimits, WorkerReport

_LIMITS = HealthLimits(max_memory_mb=512.0)


def report(**facts: float) -> WorkerReport:
    return WorkerReport("w", 1, "node", **facts)


@pytest.mark.parametrize(
    ("facts", "reason", "hard"),
    [
        ({"private_mb": 513.0}, "memory: 513 MB, over the limit of 512 MB", False),
        ({"private_mb": 769.0}, "memory: 769 MB, over the hard limit of 768 MB", True),
        ({"starting_s": 1_801.0}, "start: not ready to work after 1801 s", True),
        ({"starting_s": 1_801.0, "trouble": "no net"}, "start: not ready to work after 1801 s: no net", True),
        ({"overrun_s": 11.0, "overrun_job": "j"}, "execution time: job j runs 11 s past its time limit", True),
    ],
)
def test_what_is_over_its_limit_is_ill_and_says_why(facts: dict[str, float], reason: str, hard: bool) -> None:
    verdict = Health(_LIMITS).reported(report(**facts))
    assert verdict is not None
    assert (verdict.reason, verdict.hard) == (reason, hard)


@pytest.mark.parametrize(
    "facts", [{}, {"private_mb": 512.0}, {"overrun_s": 10.0}, {"lag_s": 5.0}, {"starting_s": 1_800.0}]
)
def test_what_is_at_its_limit_is_well(facts: dict[str, float]) -> None:
    health = Health(_LIMITS)
    assert [health.reported(report(**facts)) for _ in range(3)] == [None] * 3


def test_a_hard_reason_goes_before_a_soft_one() -> None:
    verdict = Health(_LIMITS).reported(report(private_mb=600.0, overrun_s=60.0))
    assert verdict is not None
    assert verdict.hard


def test_without_a_memory_limit_any_size_is_well() -> None:
    assert Health(HealthLimits()).reported(report(private_mb=1e6)) is None


def test_a_loop_that_stands_still_once_is_forgiven_and_twice_in_a_row_is_not() -> None:
    health = Health(_LIMITS)
    assert health.reported(report(lag_s=9.0)) is None
    assert health.reported(report()) is None
    assert health.reported(report(lag_s=9.0)) is None
    verdict = health.reported(report(lag_s=7.0))
    assert verdict is not None
    assert (verdict.hard, "7.0 s" in verdict.reason) == (False, True)


def test_checks_missed_in_a_row_are_the_end_and_an_answer_starts_the_count_anew() -> None:
    health = Health(_LIMITS)
    assert [health.missed(2.0), health.missed(2.0)] == [None, None]
    assert health.reported(report()) is None
    assert [health.missed(2.0), health.missed(2.0)] == [None, None]
    verdict = health.missed(2.0)
    assert verdict is not None
    assert (verdict.reason, verdict.hard) == ("heartbeat: no answer to 3 checks of 2 s", True)
