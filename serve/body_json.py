"""The JSON of requests' bodies: the one place where it is decoded, other than into models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pydantic

from aiqueue.errors import FieldError, ValidationError

BODY = "body"  #: the field's name where the body as a whole is wrong

_DOUBLE = "is given twice in one object: one of the two values would be lost"
_before_name = re.compile(rb"[\s{,]*").match
_match_name = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL).match
_after_name = re.compile(rb"[\s:]*").match
_NOTHING = pydantic.TypeAdapter[None](None)


def decode(raw: bytes | msgspec.Raw, kind: Any = Any) -> Any:
    """Return the JSON in ``raw`` as ``kind``.

    Raises ValidationError for what is no JSON, no UTF-8, nested too deep, or has a number that can't be stored (NaN,
    Infinity, 1e999); msgspec.ValidationError where it is other JSON than a ``kind``. Parts that are left as
    ``msgspec.Raw`` may still hold such texts and numbers.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too, and no MsgspecError
        if kind is not Any and isinstance(error, msgspec.ValidationError):
            raise
        raise ValidationError([FieldError(BODY, _why(bytes(raw), error))]) from None


def _why(raw: bytes, error: Exception) -> str:
    """Return what is wrong in the words of pydantic, which names the line; it lets pass what JSON has no number for."""
    try:
        _NOTHING.validate_json(raw)
    except pydantic.ValidationError as found:
        detail = found.errors(include_url=False, include_input=False)[0]
        if detail["type"] == "json_invalid":
            return detail["msg"]
    where = str(error).split(" - at")[0]
    return f"Invalid JSON: numbers must be finite; NaN, Infinity and 1e999 are none ({where})"


def refuse_double_names(raw: bytes, members: Mapping[str, msgspec.Raw], where: str = "") -> None:
    """Raise ValidationError if a name stands twice in the object ``raw``, of which ``members`` was decoded.

    A decoder keeps the last of the two values, in the place of the first one. So the text is compared with it.
    """
    at = 0
    for name, value in members.items():
        found, at = _name_at(raw, at)
        kept = bytes(value)
        if found != name or not raw.startswith(kept, at):
            raise ValidationError([FieldError(where + found, _DOUBLE)])
        at += len(kept)
    found, _ = _name_at(raw, at)
    if found:
        raise ValidationError([FieldError(where + found, _DOUBLE)])


def _name_at(raw: bytes, at: int) -> tuple[str, int]:
    """Return the name of the member that begins here, and where its value begins; no name at the object's end."""
    found = _match_name(raw, _end_of(_before_name(raw, at)))
    return (msgspec.json.decode(found[0], type=str), _end_of(_after_name(raw, found.end()))) if found else ("", at)


def _end_of(found: re.Match[bytes] | None) -> int:
    return found.end() if found else 0
