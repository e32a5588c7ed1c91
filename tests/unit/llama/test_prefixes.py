"""Which beginnings are remembered, found and forgotten."""

from __future__ import annotations

import numpy as np

from aiqueue.llama.prefixes import NO_MATCH, Match, PrefixCache, Tokens


def tokens(*values: int) -> Tokens:
    return np.array(values, np.int32)


def test_the_longest_common_beginning_is_found() -> None:
    cache = PrefixCache()
    cache.keep(0, tokens(1, 2, 9))
    cache.keep(1, tokens(1, 2, 3, 4))
    assert cache.match(tokens(1, 2, 3, 7)) == Match(1, 3)
    assert cache.match(tokens(5)) == NO_MATCH


def test_one_that_another_goes_on_from_is_superfluous_unless_pinned() -> None:
    cache = PrefixCache()
    cache.keep(0, tokens(1, 2), pinned=True)
    cache.keep(1, tokens(1, 2, 3))
    assert cache.keep(2, tokens(1, 2, 3, 4)) == [1]
    assert cache.sequences == [2, 0]


def test_the_one_used_longest_ago_is_forgotten_first_and_a_pinned_one_last() -> None:
    cache = PrefixCache()
    cache.keep(0, tokens(1), pinned=True)
    cache.keep(1, tokens(2))
    cache.keep(2, tokens(3))
    cache.touch(1)
    assert [cache.forget_one() for _ in range(4)] == [2, 1, 0, None]


def test_one_can_be_spared() -> None:
    cache = PrefixCache()
    cache.keep(0, tokens(1))
    cache.keep(1, tokens(2))
    assert cache.forget_one(but=0) == 1
    assert cache.forget_one(but=0) is None
