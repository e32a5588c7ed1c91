"""Rows of many jobs that are made only where they are written."""

from __future__ import annotations

from aiqueue.engine.effects import JobRows, Rows


def listed(first: int, count: int) -> JobRows:
    ids = [f"job-{seq}" for seq in range(first, first + count)]
    return JobRows(first, ids, [b"header"] * count, [b"payload"] * count)


def test_rows_of_lists_are_spread_among_the_others_in_the_order_of_acceptance_once() -> None:
    rows = Rows(lists=[listed(2, 1_200)])
    rows.extend(Rows(jobs=[(1_202, "job-1202", b"header", b"payload")], lists=[listed(1_203, 3)]))
    rows.extend(Rows(jobs=[(1, "job-1", b"header", b"payload")]))
    assert rows
    for _ in range(2):
        rows.spread()
        assert rows.jobs == [(seq, f"job-{seq}", b"header", b"payload") for seq in range(1, 1_206)]
        assert not rows.lists


def test_a_list_alone_is_something_to_write() -> None:
    assert Rows(lists=[listed(1, 1)])
