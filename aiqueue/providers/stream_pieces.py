"""The parts of a stream's events, checked as they come: one of a wrong type must not be left out of an answer."""

from __future__ import annotations

from typing import Any

_MAX_INDEX = 2**31 - 1


class OddPiece(ValueError):
    """A part of an event that is not of the format: which one, and what it should be."""


def object_in(piece: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the object called ``name``; empty for none or null. Raises OddPiece for anything else."""
    value = piece.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise OddPiece(f"{name} must be an object, not {type(value).__name__}")
    return value


def counts_in(piece: dict[str, Any]) -> dict[str, Any]:
    """Return the object called ``usage``; empty for anything else: no text is left out of an answer with it."""
    value = piece.get("usage")
    return value if isinstance(value, dict) else {}


def list_in(piece: dict[str, Any], name: str) -> list[Any]:
    """Return the list of objects called ``name``, as ``object_in`` does."""
    value = piece.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise OddPiece(f"{name} must be a list of objects")
    return value


def text_in(piece: dict[str, Any], name: str) -> str:
    """Return the text called ``name``, as ``object_in`` does."""
    value = piece.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise OddPiece(f"{name} must be a text, not {type(value).__name__}")
    return value


def index_in(piece: dict[str, Any], default: int | None = None) -> int:
    """Return the index; ``default`` where there is none or null. Raises OddPiece for what counts nothing."""
    value = piece.get("index")
    if value is None:
        value = default
    if type(value) is not int or not 0 <= value <= _MAX_INDEX:  # True is an int too
        raise OddPiece("index must be a number from 0 on")
    return value
