"""A provider's JSON, read: leniently as an answer that is paid for, but never nested deeper than others can read it.

An answer is walked, encoded and decoded again by the worker, the queue's clients and the front, each with a stack of
its own. So the depth is bounded where it comes in, and not by what is left of one stack.
"""

from __future__ import annotations

import codecs
from itertools import accumulate
from typing import Any

import msgspec

from aiqueue.encodable import lenient_json

MAX_DEPTH = 200  #: levels of lists and objects; the parser of HTTP bodies stops there too

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one down, one up (-1 as a signed byte)
_NEITHER = bytes(set(range(256)) - set(b'[{]}"'))
_decode = msgspec.json.Decoder().decode


class TooDeep(ValueError):
    """JSON that is nested deeper than ``MAX_DEPTH``."""

    def __init__(self) -> None:
        super().__init__(f"nested more than {MAX_DEPTH} levels deep")


def read_json(content: bytes) -> Any:
    """Return the value in ``content``; see ``lenient_json`` for what may be in it. A byte order mark may come before.

    Raises TooDeep, and ValueError for what is no JSON; never RecursionError.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        value = _decoded(content)
    except RecursionError:
        raise TooDeep from None
    if _is_too_deep(content):
        raise TooDeep
    return value


def _decoded(content: bytes) -> Any:
    try:
        return _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return lenient_json(content)


def _is_too_deep(content: bytes) -> bool:
    """Return True if JSON is nested deeper than ``MAX_DEPTH``. It counts brackets: to walk a long vector is slower."""
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return False
    if b"\\" in content:  # no escaped quote may end a text
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_of_texts = b"".join(content.translate(_STEPS, _NEITHER).split(b'"')[::2])
    return max(accumulate(memoryview(outside_of_texts).cast("b")), default=0) > MAX_DEPTH
