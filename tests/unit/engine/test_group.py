"""Whether a batch must stop: the share of failed jobs against the limit its caller wrote down."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.group import Group
from aiqueue.engine.states import JobState
from aiqueue.protocol import BatchSpec


def trips(ratio: float, failed: int, total: int) -> bool:
    """Return whether a batch of ``total`` jobs stops after ``failed`` of them."""
    stored = StoredBatch(total=total, ended={JobState.FAILED.value: failed})
    return bool(Group(1, BatchSpec("b", max_failed_ratio=ratio), stored, now=0.0).trips())


@example(written="0.29", total=100, over=0)
@example(written="0.57", total=100, over=0)
@given(
    written=st.integers(0, 10_000).map(lambda number: f"{number / 10_000:.4f}"),
    total=st.one_of(st.integers(1, 1_000), st.integers(1, 10_000_000), st.sampled_from([10_000, 1_000_000])),
    over=st.integers(-2, 2),
)
def test_a_limit_with_up_to_four_decimals_stops_only_at_a_greater_share(written: str, total: int, over: int) -> None:
    failed = min(max(int(Fraction(written) * total) + over, 0), total)
    assert trips(float(written), failed, total) == (Fraction(failed, total) > Fraction(written))


@given(total=st.integers(1, 10_000_000), share=st.fractions(0, 1))
def test_a_limit_that_a_program_divided_stops_only_at_one_more(total: int, share: Fraction) -> None:
    allowed = int(share * total)
    assert not trips(allowed / total, allowed, total)
    assert allowed == total or trips(allowed / total, allowed + 1, total)
