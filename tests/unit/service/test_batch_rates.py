"""Rates of batches: for those that somebody asks about."""

from __future__ import annotations

from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.group import Group
from aiqueue.protocol import BatchSpec
from aiqueue.service.batch_rates import BatchRates


def test_thousands_of_batches_that_nobody_asks_about_cost_nothing() -> None:
    rates = BatchRates()
    live = {f"b{n}": Group(n, BatchSpec(f"b{n}"), StoredBatch(), now=0.0) for n in range(1_000)}
    rates.of("b7", live["b7"].stored, live=True, now=10.0)
    for second in range(11, 60):
        rates.tick(live, now=float(second))
    assert list(rates._of) == ["b7"]
    for second in range(60, 80):
        rates.tick(live, now=float(second))
    assert len(rates) == 0, "nobody has asked for a minute"


def test_a_rate_is_that_of_the_last_half_minute_once_there_is_something_to_go_by() -> None:
    rates, stored = BatchRates(), StoredBatch(created_at=100.0)
    group = Group(1, BatchSpec("b"), stored, now=100.0)
    stored.ends = 50
    assert rates.of("b", stored, live=True, now=110.0) == 5.0, "over its life so far"
    for second in range(111, 200):
        stored.ends += 2
        rates.tick({"b": group}, now=float(second))
        if second % 10 == 0:
            rates.of("b", stored, live=True, now=float(second))
    assert rates.of("b", stored, live=True, now=199.0) == 2.0
    stored.ended_at = 200.0
    assert rates.of("b", stored, live=False, now=500.0) == stored.ends / 100.0
