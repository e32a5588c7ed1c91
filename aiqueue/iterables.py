"""What can be read as a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard


def is_iterable(given: object) -> TypeGuard[Iterable[Any]]:
    """Return True for what can be read item by item: not numpy's arrays without a dimension, which look like it."""
    if not isinstance(given, Iterable):
        return False
    try:
        iter(given)
    except TypeError:
        return False
    return True
