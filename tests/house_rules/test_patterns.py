"""The rule on regular expressions knows slow ones from fast ones."""

from __future__ import annotations

import pytest

from tests.house_rules.patterns import why_slow

SLOW = [
    r"\s*[+-]?[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?\s*",
    r"(a+)+b",
    r".*x.*y",
    r"(a|ab)*c",
    r"(a|a)*c",
    r"(?:a|aa)*c",
    r"(\w+\s?)*$",
    r"a+(b+)?a+",
    r"a*(ab)?a*c",
    r"(.+)-reset(.+)x",
    r"[a-z]{0,5000}[a-y]+z",
]
FAST = [
    r"\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*",
    r"(a|b)*c",
    r"(ab|cd)*e",
    r"(\w+\.)*\w+@",
    r"[a-z]++[a-z]*x",
    r"a*?b*?a",
    r"a*ba*c",
    r"(.+)-reset",
]
SLOW_TO_SEARCH = [r"\s+$", r"x*y", r"\s*,\s*", r"^\s+|\s+$", r"(?:a*a*x)?"]
FAST_TO_SEARCH = [r"x*", r"(?<=://)[^/\s@]+(?=@)", r"[0-9]+(?:\.[0-9]+)?", r"^\s+x", r"x\S+"]


@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_can_share_a_run_in_many_ways_is_slow(pattern: str) -> None:
    assert why_slow(pattern, searched=False)


@pytest.mark.parametrize("pattern", FAST)
def test_a_pattern_that_can_match_in_one_way_only_is_fast(pattern: str) -> None:
    assert not why_slow(pattern, searched=False)


@pytest.mark.parametrize("pattern", SLOW_TO_SEARCH)
def test_a_search_that_begins_with_a_run_is_slow(pattern: str) -> None:
    assert why_slow(pattern, searched=True)


@pytest.mark.parametrize("pattern", FAST_TO_SEARCH)
def test_a_search_that_can_not_fail_behind_a_run_is_fast(pattern: str) -> None:
    assert not why_slow(pattern, searched=True)
