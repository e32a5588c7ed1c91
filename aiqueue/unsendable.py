"""Which part of a message can't be encoded. Many callers share a call, so a bad message must be found and left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiqueue.errors import FieldError
from aiqueue.protocol import Wire, encode

_SHOWN = 200  # characters of a reason


def unsendable(message: Any, field: str = "") -> FieldError | None:
    """Return the innermost part of ``message`` that can't be encoded, and why; None if all of it can.

    >>> from aiqueue.protocol import BatchSpec
    >>> str(unsendable(BatchSpec("b", max_concurrency=2**64)))
    "max_concurrency: can't be sent: can't serialize ints < -2**63 or > 2**64 - 1"
    """
    try:
        encode(message)
    except Exception as error:  # whatever it is: a message is made of what callers give
        for name, part in _parts_of(message):
            if found := unsendable(part, f"{field}.{name}" if field else name):
                return found
        return FieldError(field or "message", f"can't be sent: {str(error)[:_SHOWN]}")
    return None


def _parts_of(message: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a message, and the messages in a list of them."""
    if isinstance(message, Wire):
        yield from ((name, getattr(message, name)) for name in message.__struct_fields__)
    elif isinstance(message, list | tuple):
        yield from ((str(at), part) for at, part in enumerate(message) if isinstance(part, Wire))
