"""Tool calls of a streamed chat put together again, as the servers of OpenAI's format cut them.

OpenAI numbers its calls, and the first piece of each has its id and name. Others leave the number out or give all calls
the same, or give every piece an id of its own and the name again. What tells two calls apart is then that one is named
when the text of the other has come to its end.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from aiqueue.providers.stream_pieces import index_in, object_in, text_in

#: What is called, by the type of call: its texts, each of which may come in parts.
_CALLED = {"function": ("name", "arguments"), "custom": ("name", "input")}
_OF_THE_FIRST = ("id", "type")  # pieces that repeat them add nothing
_READ_BY_NAME = frozenset({"index", *_OF_THE_FIRST, *_CALLED})
_MARKS = re.compile(r"\\.?|[\"{}\[\]]", re.DOTALL)  # what tells where JSON ends


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
        elif self._begins_another(here[-1], piece):
            before = here[-1]
            if piece.get("index") is None:
                index = self._free
                here = self._calls[index] = []
            here.append(_Call(before))
        here[-1].add(piece)
        self._last, self._free = index, max(self._free, index + 1)

    @staticmethod
    def _begins_another(last: _Call, piece: dict[str, Any]) -> bool:
        if _name_in(piece):
            return last.is_over_before(piece)
        return piece.get("index") is None and last.has_another_id(piece)  # with an index, ids may be new in each piece

    def whole(self) -> list[dict[str, Any]]:
        """Return the calls as they would have come without streaming, in their order."""
        return [call.whole() for _, calls in sorted(self._calls.items()) for call in calls if not call.is_echo]


class _Call:
    def __init__(self, before: _Call | None = None) -> None:
        self._before = before  # the call whose end the first piece of this seemed to tell of
        self._first: dict[str, Any] = {}
        self._called: defaultdict[str, _Parts] = defaultdict(_Parts)
        self._own = _Parts()  # what servers add
        self._has_text = False
        self._json = _Json()

    @property
    def is_echo(self) -> bool:
        """Whether this is but the last piece of the call before it: named once more, with nothing further to say."""
        return self._before is not None and not self._has_text and self._name == self._before._name

    @property
    def _name(self) -> str:
        return "".join(called.texts["name"].whole() for called in self._called.values())

    def has_another_id(self, piece: dict[str, Any]) -> bool:
        return _has(piece, "id") and self._first.get("id", piece["id"]) != piece["id"]

    def is_over_before(self, piece: dict[str, Any]) -> bool:
        """Whether ``piece``, which has a name, is of another call."""
        if _has(piece, "id") and piece["id"] == self._first.get("id"):
            return False
        kind = next(iter(self._called), "function")
        said = self._called[kind].texts
        is_named_so = said["name"].is_whole(text_in(object_in(piece, kind), "name"))
        if not (said["name"] and self._has_text):
            return not is_named_so and (self.has_another_id(piece) or self.is_echo)
        if not is_named_so:
            return True
        if kind == "custom":  # its text may be anything
            return self.has_another_id(piece) or "id" not in self._first
        return self._json.is_over(said["arguments"].parts)

    def add(self, piece: dict[str, Any]) -> None:
        for name in _OF_THE_FIRST:
            if _has(piece, name):
                self._first.setdefault(name, piece[name])
        for kind, texts in _CALLED.items():
            called = object_in(piece, kind)
            for name in texts:
                text_in(called, name)
            if called:
                self._called[kind].add(called, goes_on=texts[1])
            self._has_text = self._has_text or bool(text_in(called, texts[1]).strip())
        self._own.add({name: value for name, value in piece.items() if name not in _READ_BY_NAME})

    def whole(self) -> dict[str, Any]:
        called = {kind: parts.whole(_CALLED[kind]) for kind, parts in self._called.items()}
        if not called:
            called = {"function": dict.fromkeys(_CALLED["function"], "")}
        return {"id": None, "type": "function", **self._first, **called, **self._own.whole()}


class _Parts:
    """An object that comes in pieces: of its texts all parts, of anything else the last."""

    def __init__(self) -> None:
        self.texts: defaultdict[str, _Text] = defaultdict(_Text)
        self._others: dict[str, Any] = {}

    def add(self, piece: dict[str, Any], *, goes_on: str = "") -> None:
        """Take the next piece. A text that says all so far adds nothing, unless it is the one called ``goes_on``."""
        for name, value in piece.items():
            if isinstance(value, str):
                if name == goes_on or not self.texts[name].is_whole(value):
                    self.texts[name].add(value)
            elif value is not None:
                self._others[name] = value

    def whole(self, names: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the object, with texts called ``names`` in it in any case."""
        texts = {name: text.whole() for name, text in self.texts.items() if text}
        return {**dict.fromkeys(names, ""), **self._others, **texts}


class _Text:
    """A text in parts, which are put together once."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._length = 0

    def __bool__(self) -> bool:
        return bool(self.parts)

    def add(self, part: str) -> None:
        if part:
            self.parts.append(part)
            self._length += len(part)

    def is_whole(self, text: str) -> bool:
        # Only with a text of the same length is it compared, so that many such questions take no longer than to read.
        return len(text) == self._length and text == self.whole()

    def whole(self) -> str:
        return "".join(self.parts)


class _Json:
    """Tells whether a text in parts, which grows, is all of a JSON value: each part is read once."""

    def __init__(self) -> None:
        self._read = 0  # parts
        self._depth = 0
        self._is_in_text = False
        self._rest = ""  # a backslash whose character has not come

    def is_over(self, parts: list[str]) -> bool:
        said = self._rest + "".join(parts[self._read :])
        self._read, self._rest = len(parts), ""
        for mark in _MARKS.findall(said):
            if mark == '"':
                self._is_in_text = not self._is_in_text
            elif mark == "\\":
                self._rest = mark
            elif not self._is_in_text:
                self._depth += (mark in ("{", "[")) - (mark in ("}", "]"))
        return self._depth <= 0 and not self._is_in_text


def _has(piece: dict[str, Any], name: str) -> bool:
    return piece.get(name) not in (None, "")


def _name_in(piece: dict[str, Any]) -> str:
    return "".join(text_in(object_in(piece, kind), "name") for kind in _CALLED)
