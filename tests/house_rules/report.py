"""How a broken rule is told."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def report(problems: Iterable[str], advice: str) -> None:
    """Fail with every problem and what to do about them."""
    found = list(problems)
    if found:
        pytest.fail("\n".join([f"{len(found)} broken:", *found, "", advice]), pytrace=False)
