"""Makes what a stranger sent fit to be encoded: half surrogate pairs, numbers beyond 64 bits, NaN and infinity.

Python's own json reads all of these without a word, and msgpack and JSON can write none of them. One such value in a
message that carries many jobs stops them all, so it is replaced where it comes in.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_COUNT = 2**53  #: what a double, and so every JSON reader, still counts exactly


def encodable_text(text: str, *, limit: int | None = None) -> str:
    """Return ``text`` as UTF-8 can carry it, in at most ``limit`` characters.

    Two halves of a pair that came apart, as at a border between pieces of a stream, are one character again.

    >>> encodable_text("\\ud83d\\ude00, and cut in one: \\ud83d") == "😀, and cut in one: \ufffd"
    True
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def encodable_count(count: object) -> int:
    """Return a count of something within 0 to ``MAX_COUNT``; 0 for what counts nothing.

    >>> encodable_count(-3), encodable_count(10**30), encodable_count(float("nan"))
    (0, 9007199254740992, 0)
    >>> encodable_count(12.0), encodable_count(None), encodable_count("12"), encodable_count(True)
    (12, 0, 0, 0)
    """
    if not isinstance(count, int | float) or isinstance(count, bool) or count != count:
        return 0
    return int(min(max(count, 0), MAX_COUNT))


def encodable(value: Any) -> Any:
    """Return a JSON value in which all text can be encoded, and numbers that are none are null."""
    if isinstance(value, str):
        return encodable_text(value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def lenient_json(content: bytes) -> Any:
    """Return the JSON in ``content``, read as generously as Python's json does: for an answer that is paid for already.

    NaN and infinity, which servers written in Python send as log probabilities, become null, as do whole numbers of
    thousands of digits. Text may hold half surrogate pairs; ``encodable_text`` joins or replaces them. Raises
    ValueError or RecursionError for what is no JSON.
    """
    text = content.decode("utf-8", "replace")
    return json.loads(text, parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole)


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _whole(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # more digits than Python reads
        return None
