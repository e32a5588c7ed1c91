"""The book of cells against a plain model of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiqueue.llama.cells import CellLedger

CELLS, SEQUENCES = 40, 4
moves = st.lists(
    st.tuples(
        st.sampled_from(["take", "share", "drop"]),
        st.integers(0, SEQUENCES - 1),
        st.integers(0, SEQUENCES - 1),
        st.integers(0, 12),
    ),
    max_size=60,
)


@given(moves=moves)
def test_the_book_is_right_after_any_moves(moves: list[tuple[str, int, int, int]]) -> None:
    ledger = CellLedger(CELLS, SEQUENCES)
    held: list[list[object]] = [[] for _ in range(SEQUENCES)]
    for move, one, other, count in moves:
        used = {id(cell) for cells in held for cell in cells}
        if move == "take" and count <= CELLS - len(used):
            ledger.take(one, count)
            held[one] += [object() for _ in range(count)]
        elif move == "share" and not held[other] and count <= len(held[one]):
            ledger.share(one, other, count)
            held[other] = held[one][:count]
        elif move == "drop":
            ledger.drop(one, but=count)
            held[one] = held[one][:count]
        used = {id(cell) for cells in held for cell in cells}
        assert ledger.free == CELLS - len(used)
        assert [ledger.length(sequence) for sequence in range(SEQUENCES)] == [len(cells) for cells in held]
        assert ledger.held_by([0, 1]) == len({id(cell) for cells in held[:2] for cell in cells})


def test_what_is_not_there_can_not_be_taken_or_shared() -> None:
    ledger = CellLedger(4, 2)
    with pytest.raises(ValueError, match="5 cells wanted, 4 are free"):
        ledger.take(0, 5)
    ledger.take(0, 2)
    with pytest.raises(ValueError, match="can't share 3 of 2 cells"):
        ledger.share(0, 1, 3)
