"""What a program gives as JSON, encoded: payloads and metadata."""

from __future__ import annotations

from numbers import Integral, Real

import msgspec

from aiqueue.texts import plain


def _plain_value(value: object) -> str | int | float:
    """Return a text or a number of a subclass, such as numpy's, as a plain one. Raises TypeError for anything else."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


#: Return a value as JSON. Raises what msgspec raises for a value that is none.
encode = msgspec.json.Encoder(enc_hook=_plain_value).encode
