"""Tool calls of a streamed chat put together again, as the servers of OpenAI's format cut them.

OpenAI numbers its calls, and the first piece of each has its id and name. Others leave the number out or give all calls
the same, or give every piece an id of its own; what tells two calls apart is then the id and the name together.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from aiqueue.providers.stream_pieces import index_in, object_in, text_in

#: What is called, by the type of call: its texts, each of which may come in parts.
_CALLED = {"function": ("name", "arguments"), "custom": ("name", "input")}
_OF_THE_FIRST = ("id", "type")  # pieces that repeat them add nothing
_READ_BY_NAME = frozenset({"index", *_OF_THE_FIRST, *_CALLED})


class CallsAssembly:
    """Takes the pieces of all calls of one message."""

    def __init__(self) -> None:
        self._calls: dict[int, list[_Call]] = {}  # by index: several where a server gives each the same
        self._last = 0  # index of the call that the last piece was of
        self._free = 0  # the first index behind all that came

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, piece: dict[str, Any]) -> None:
        """Take the next piece. One without an index goes on with the last call or begins the next."""
        index = index_in(piece, self._last)
        here = self._calls.setdefault(index, [])
        if not here:
            here.append(_Call())
        elif piece.get("index") is not None:
            if here[-1].has_another_id(piece) and _name_in(piece):  # an id alone may be new in each piece
                here.append(_Call())
        elif here[-1].has_another_id(piece) or here[-1].is_named_again(piece):
            index = self._free
            here = self._calls[index] = [_Call()]
        here[-1].add(piece)
        self._last, self._free = index, max(self._free, index + 1)

    def whole(self) -> list[dict[str, Any]]:
        """Return the calls as they would have come without streaming, in their order."""
        return [call.whole() for _, calls in sorted(self._calls.items()) for call in calls]


class _Call:
    def __init__(self) -> None:
        self._first: dict[str, Any] = {}
        self._called: defaultdict[str, _Parts] = defaultdict(_Parts)
        self._own = _Parts()  # what servers add

    def has_another_id(self, piece: dict[str, Any]) -> bool:
        return _has(piece, "id") and self._first.get("id", piece["id"]) != piece["id"]

    def is_named_again(self, piece: dict[str, Any]) -> bool:
        is_named = any(called.texts["name"] for called in self._called.values())
        return is_named and bool(_name_in(piece)) and not (_has(piece, "id") and "id" in self._first)

    def add(self, piece: dict[str, Any]) -> None:
        for name in _OF_THE_FIRST:
            if _has(piece, name):
                self._first.setdefault(name, piece[name])
        for kind, texts in _CALLED.items():
            called = object_in(piece, kind)
            for name in texts:
                text_in(called, name)
            if called:
                self._called[kind].add(called)
        self._own.add({name: value for name, value in piece.items() if name not in _READ_BY_NAME})

    def whole(self) -> dict[str, Any]:
        called = {kind: parts.whole(_CALLED[kind]) for kind, parts in self._called.items()}
        if not called:
            called = {"function": dict.fromkeys(_CALLED["function"], "")}
        return {"id": None, "type": "function", **self._first, **called, **self._own.whole()}


class _Parts:
    """An object that comes in pieces: of its texts all parts, of anything else the last."""

    def __init__(self) -> None:
        self.texts: defaultdict[str, list[str]] = defaultdict(list)
        self._others: dict[str, Any] = {}

    def add(self, piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if isinstance(value, str):
                if value:
                    self.texts[name].append(value)
            elif value is not None:
                self._others[name] = value

    def whole(self, names: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the object, with texts called ``names`` in it in any case."""
        texts = {name: "".join(parts) for name, parts in self.texts.items()}
        return {**dict.fromkeys(names, ""), **self._others, **texts}


def _has(piece: dict[str, Any], name: str) -> bool:
    return piece.get(name) not in (None, "")


def _name_in(piece: dict[str, Any]) -> str:
    return "".join(text_in(object_in(piece, kind), "name") for kind in _CALLED)
