"""Reads in portions, for any sizes of rows, also those that can't be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from aiqueue.service.portions import first_portion, portions

SIZES = st.dictionaries(st.integers(0, 40), st.integers(0, 2**21), max_size=30)
LIMIT = 2**22


class Sizes:
    """Sizes of rows by key; those of ``broken`` ones raise, also where others are asked for beside them."""

    def __init__(self, sizes: Mapping[int, int], broken: frozenset[int] = frozenset()) -> None:
        self._sizes, self._broken = sizes, broken

    def read(self, keys: Sequence[int]) -> dict[int, int]:
        """Return the sizes of the known ones."""
        if not self._broken.isdisjoint(keys):
            raise OSError("Input/output error")
        return {key: self._sizes[key] for key in keys if key in self._sizes}


@given(sizes=SIZES, broken=st.frozensets(st.integers(0, 40)), most=st.integers(1, 9))
def test_each_known_row_is_in_one_portion_and_none_is_too_large(
    sizes: dict[int, int], broken: frozenset[int], most: int
) -> None:
    asked = range(41)
    found = list(portions(asked, Sizes(sizes, broken).read, limit=LIMIT, most=most))
    assert [key for portion in found for key in portion] == [key for key in asked if key in sizes or key in broken]
    for portion in found:
        assert 1 <= len(portion) <= most
        assert sum(sizes[key] for key in portion if key not in broken) <= LIMIT


@given(sizes=SIZES)
def test_first_portions_one_after_the_other_pass_every_key_once(sizes: dict[int, int]) -> None:
    left: Sequence[int] = range(41)
    found: list[int] = []
    while left:
        portion, end = first_portion(left, Sizes(sizes).read, limit=LIMIT)
        assert set(left[:end]) & sizes.keys() == set(portion)
        found += portion
        left = left[end:]
    assert found == sorted(sizes)


def test_a_row_that_is_too_large_goes_alone() -> None:
    assert list(portions([1, 2, 3], Sizes({1: 1, 2: 9, 3: 1}).read, limit=4)) == [[1], [2], [3]]


def test_sizes_are_read_as_far_as_they_are_needed() -> None:
    asked: list[int] = []

    def sizes_of(keys: Sequence[int]) -> dict[int, int]:
        asked.extend(keys)
        return dict.fromkeys(keys, 1)

    found = portions(range(5_000), sizes_of)
    assert len(next(found)) == len(asked) < 5_000
