"""Finding the templates of a text: as a pattern would, and each character once."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from aiqueue.templates import _braces, references

_PATTERN = re.compile(r"\\\{\{|\{\{(.*?)\}\}", re.DOTALL)


@given(st.text(alphabet="{}\\a\n", max_size=40))
def test_braces_are_found_where_the_pattern_finds_them(text: str) -> None:
    assert list(_braces(text)) == [(found.start(), found.end(), found[1]) for found in _PATTERN.finditer(text)]


class Counted(str):
    """A text that counts how many characters were searched."""

    searched = 0

    def find(self, wanted, start=0, *rest):  # type: ignore[no-untyped-def]
        found = super().find(wanted, start, *rest)
        Counted.searched += (len(self) if found < 0 else found) - start
        return found


def test_braces_that_are_never_closed_are_looked_at_twice_at_most() -> None:
    text = Counted("{{" * 50_000)
    Counted.searched = 0
    assert list(_braces(text)) == []
    assert Counted.searched <= 3 * len(text)


def test_a_payload_of_open_braces_has_no_template() -> None:
    assert references({"messages": [{"role": "user", "content": "{{" * 50_000}]}) == []
