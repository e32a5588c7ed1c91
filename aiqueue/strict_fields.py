"""Numbers, flags, levels and times as users may write them: pydantic alone takes ``true`` and ``"3"`` for numbers.

| given | number | flag | level |
| --- | --- | --- | --- |
| ``true`` | refused | accepted | refused |
| ``"3"`` | refused | refused | by name only |
| ``3.0`` | accepted, as 3 | refused | refused |
| ``null`` | as absent, where it may be absent | the same | as absent |

All fields of options and schedules, and of nodes and bodies beside their payloads, take ``null`` as absent if they may
be absent. Payloads are the providers' own: in ``config`` too ``3.0`` is no integer, since it is sent as it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from numbers import Real
from operator import index
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticUseDefault, core_schema

from aiqueue.levels import NUMERIC_ALIASES

_NUMBER = re.compile(r"[+-]?[0-9.]++(?:e[+-]?[0-9]++)?", re.IGNORECASE)
_BOOLS = ("bool", "bool_")  # Python's, and both names of numpy's


def number(value: Any) -> Any:
    """Refuse what pydantic would turn into a number: ``True``, which is a slip, and texts. numpy's numbers pass."""
    if isinstance(value, str | bytes) or type(value).__name__ in _BOOLS:
        raise ValueError(f"must be a number, not {_said(value)}")
    return value


def moment(value: Any) -> Any:
    """Refuse a number as a time, in a text too: pydantic takes it for seconds, or for milliseconds if it is large."""
    if isinstance(value, Real) or (isinstance(value, str) and _NUMBER.fullmatch(value.strip())):
        raise ValueError("must be a time as in ISO 8601, such as 2026-01-31T12:00:00Z, and no number")
    return value


def _flag(value: Any) -> Any:
    if type(value).__name__ not in _BOOLS:  # 1 and "yes" would pass
        raise ValueError(f"must be true or false, not {_said(value)}")
    return value


class _NullIsAbsent:
    """``null`` gives the field's default."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_given, core_schema.nullable_schema(handler(source)))


def _given(value: Any) -> Any:
    if value is None:
        raise PydanticUseDefault
    return value


NULL_IS_ABSENT = _NullIsAbsent()  #: the last of a field's annotations


def without_null(field: str) -> Callable[[Any], Any]:
    """Return a validator that leaves ``field`` out if it is null: pydantic counts it among the fields that were set."""

    def leave_out(given: Any) -> Any:
        if isinstance(given, Mapping) and given.get(field, "") is None:
            return {name: value for name, value in given.items() if name != field}
        return given

    return leave_out


def _said(value: Any) -> str:
    return (
        "true or false" if type(value).__name__ in _BOOLS else "a text" if isinstance(value, str) else repr(value)[:70]
    )


Flag = Annotated[bool, BeforeValidator(_flag)]


def level_or_number(value: Any) -> Any:
    """Return a whole number, also one of numpy's, as an int. Refuse a flag and a fraction: ``True`` equals 1."""
    if type(value).__name__ in _BOOLS or isinstance(value, float):
        raise ValueError("priority is a level's name or number")
    try:
        return index(value)
    except TypeError:
        return value


def level(value: Any) -> Any:
    """Return the level that a number of the specification stands for; anything else as it is."""
    value = level_or_number(value)
    return NUMERIC_ALIASES.get(value, value) if isinstance(value, int) else value
