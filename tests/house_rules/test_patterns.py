"""The rule on regular expressions knows slow ones from fast ones."""

from __future__ import annotations

import pytest

from tests.house_rules.patterns import keeps_each_repetition, why_slow

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
KEEPING = [
    r"(?:ab)*",
    r"(?:ab?)+",
    r"(a)*",
    r"(?:a|bc)*?d",
    r"(?>(?:ab)*)",
    r"x((?:ab)*)?",
    r"(?:ab){0,5000}",
    r"(?:(?:ab)*c)*+",
]
NOT_KEEPING = [r"a*", r"[a-z]*?x", r"(?:a|b)*", r"(?:(?:a))+", r"(?:ab)*+", r"(?:a|bc)++", r"(?:ab){0,9}", r"((ab))*+"]
FAST_TO_SEARCH = [r"x*", r"(?<=://)[^/\s@]+(?=@)", r"[0-9]+(?:\.[0-9]+)?", r"^\s+x", r"x\S+"]


@pytest.mark.parametrize("searched", [False, True], ids=["matched", "searched"])
def test_a_pattern_is_slow_if_it_can_share_a_run_in_many_ways_or_a_search_begins_with_one(searched: bool) -> None:
    slow, fast = (SLOW_TO_SEARCH, FAST_TO_SEARCH) if searched else (SLOW, FAST)
    assert [pattern for pattern in slow if not why_slow(pattern, searched=searched)] == []
    assert [pattern for pattern in fast if why_slow(pattern, searched=searched)] == []


def test_a_pattern_keeps_each_repetition_of_more_than_one_character_unless_it_is_possessive() -> None:
    assert [pattern for pattern in KEEPING if not keeps_each_repetition(pattern)] == []
    assert [pattern for pattern in NOT_KEEPING if keeps_each_repetition(pattern)] == []
