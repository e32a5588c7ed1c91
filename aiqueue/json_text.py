"""What a program gives as JSON, encoded: payloads and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import msgspec
from pydantic import BaseModel

from aiqueue import texts


def _plain_value(value: object) -> str | int | float | dict[Any, Any]:
    """Return a text or a number of a subclass, such as numpy's, as a plain one, and a mapping or a model as a dict.

    Raises TypeError for anything else.
    """
    if isinstance(value, str):
        return texts.plain(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, BaseModel):  # as a payload that is a model is encoded
        return value.model_dump(exclude_none=True, exclude_defaults=True)
    if isinstance(value, Mapping):
        return dict(value)
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):  # no number, and no bool
        return bool(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


#: Return a value as JSON. Raises what msgspec raises for a value that is none.
encode = msgspec.json.Encoder(enc_hook=_plain_value).encode
#: The same, with the fields of each dict in one order: equal values are equal texts.
encode_sorted = msgspec.json.Encoder(enc_hook=_plain_value, order="deterministic").encode


def plain(value: object) -> Any:
    """Return a value as JSON would give it back. Raises what ``encode`` raises."""
    return msgspec.to_builtins(value, enc_hook=_plain_value)
