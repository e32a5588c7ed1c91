"""What can be read as a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard


def is_iterable(given: object) -> TypeGuard[Iterable[Any]]:
    """Return True for what can be read item by item: not numpy's arrays without a dimension, which look like it.

    It isn't begun to be read here: there is what can be read once, and what runs a query each time.
    """
    return isinstance(given, Iterable) and getattr(given, "ndim", 1) != 0
