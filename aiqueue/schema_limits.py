"""JSON schemas that llama.cpp's grammars can't be given: known to end or block the process that follows them.

llama.cpp follows a schema as a grammar, and its parser and matcher recurse. A limit of 20,000 overflows the stack and
ends the worker with all its jobs, and a repetition of what may be empty takes exponential time. So these are refused
by name, when a job is submitted and again before it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

MOST = 1_000  #: repetitions, of characters, items or parts of a pattern; llama.cpp refuses some more, and dies of many
_MOST_DIGITS = 9
MOST_EMPTY = 16  #: repetitions of what may be empty: 30 take seconds for each token of a large vocabulary, 900 hang
DEEPEST = 50  #: groups within groups of a pattern

_LIMITS = ("minLength", "maxLength", "minItems", "maxItems")
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"const", "enum", "default", "examples"})  # values and no schemas, whatever they look like


class SchemaFault(NamedTuple):
    """Where in a schema something is too much, and what."""

    field: str
    message: str


def schema_faults(response_format: Mapping[str, Any]) -> Iterator[SchemaFault]:
    """Yield what llama.cpp can't be given of an OpenAI ``response_format``.

    >>> fmt = {"type": "json_object", "schema": {"type": "string", "maxLength": 20_000}}
    >>> [fault.field for fault in schema_faults(fmt)]
    ['schema.maxLength']
    """
    described = response_format.get("json_schema")
    if isinstance(described, Mapping):
        yield from _faults_in(described.get("schema"), "json_schema.schema")
    yield from _faults_in(response_format.get("schema"), "schema")


def _faults_in(root: object, place: str) -> Iterator[SchemaFault]:
    todo = [(root, place, False)]  # a list and no recursion: schemas may be nested deeper than Python's stack
    while todo:
        at, path, is_named = todo.pop()
        if isinstance(at, list):
            todo += [(each, f"{path}.{number}", False) for number, each in enumerate(at)]
        elif isinstance(at, dict):
            if not is_named:
                yield from _faults_of(at, path)
            for name, value in at.items():
                if is_named or name not in _DATA:
                    todo.append((value, f"{path}.{name}", not is_named and name in _NAMED))


def _faults_of(schema: Mapping[str, Any], path: str) -> Iterator[SchemaFault]:
    for name in _LIMITS:
        value = schema.get(name)
        if isinstance(value, int | float) and value > MOST:
            yield SchemaFault(f"{path}.{name}", f"is {value}, over the limit of {MOST} of providers of kind llama_cpp")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (why := _Pattern(pattern).fault()):
        yield SchemaFault(f"{path}.pattern", f"{why}; providers of kind llama_cpp can't follow it")


@dataclass(slots=True)
class _Part:
    """A piece of a pattern: whether it matches the empty text, and how often its repetitions multiply to."""

    may_be_empty: bool = False
    times: int = 1


class _Pattern:
    """Reads a regular expression as far as repetitions go; what it does not understand, the translator refuses."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._fault = ""

    def fault(self) -> str:
        """Return why the pattern can't be followed; empty if nothing is known against it."""
        while self._at < len(self._text) and not self._fault:
            self._alternatives(depth=0)
            self._at += 1  # a parenthesis too many
        return self._fault

    def _alternatives(self, depth: int) -> _Part:
        """Read up to the end of a group, behind its opening parenthesis."""
        whole, branch = _Part(), _Part(may_be_empty=True)
        if depth > DEEPEST:
            self._fault = f"has groups nested more than {DEEPEST} deep"
        while self._at < len(self._text) and not self._fault and self._text[self._at] != ")":
            if self._text[self._at] == "|":
                self._at += 1
                whole.may_be_empty |= branch.may_be_empty
                branch.may_be_empty = True
                continue
            part = self._repeated(self._one(depth))
            branch.may_be_empty &= part.may_be_empty
            whole.times = max(whole.times, part.times)
        whole.may_be_empty |= branch.may_be_empty
        return whole

    def _one(self, depth: int) -> _Part:
        char = self._text[self._at]
        self._at += 1
        if char == "(":
            part = self._alternatives(depth + 1)
            self._at += 1
            return part
        if char == "[":
            self._skip_class()
        elif char == "\\":
            self._at += 1
        return _Part(may_be_empty=char in "^$")

    def _skip_class(self) -> None:
        while self._at < len(self._text) and self._text[self._at] != "]":
            self._at += 2 if self._text[self._at] == "\\" else 1
        self._at += 1

    def _repeated(self, part: _Part) -> _Part:
        while self._at < len(self._text) and not self._fault and self._text[self._at] in "*+?{":
            char = self._text[self._at]
            self._at += 1
            least, most = self._braces() if char == "{" else (int(char == "+"), 1)
            times = part.times * max(1, most)
            if times > MOST:
                self._fault = f"has repetitions that multiply to {times}, over the limit of {MOST}"
            elif part.may_be_empty and most > 1 and times > MOST_EMPTY:
                self._fault = f"repeats {times} times what may be empty, over the limit of {MOST_EMPTY}"
            part = _Part(part.may_be_empty or least == 0, times)
        return part

    def _braces(self) -> tuple[int, int]:
        """Read ``{m}``, ``{m,}`` or ``{m,n}`` from behind its opening brace."""
        end = self._text.find("}", self._at)
        inside = self._text[self._at : end if end >= 0 else None]
        self._at += len(inside) + 1
        numbers = [_count(digits) for part in inside.split(",") if (digits := part.strip()).isdecimal()]
        least = numbers[0] if numbers and not inside.lstrip().startswith(",") else 0
        return least, max(numbers, default=1)


def _count(digits: str) -> int:
    """Return a number of repetitions; one beyond the limit for what Python would refuse to read."""
    return int(digits) if len(digits) <= _MOST_DIGITS else MOST + 1
