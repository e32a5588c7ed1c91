"""Which regular expressions take more than linear time, or memory that grows with the text.

Two parts of a pattern that repeat without end over the same characters share a run of them in as many ways as it has
places, and a text that does not match is tried in all of these ways. So does a search for a pattern that begins with
such a part, once from every place.

A repeat of more than one set of characters, such as ``(?:[^x]|xx)*``, remembers some 120 bytes of each repetition: it
may have to go back there. A possessive one, ``(?:[^x]|xx)*+``, never goes back.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]  # no other way to a pattern's parts
from typing import Any, NamedTuple

from tests.house_rules.sources import Source, called_name

_MANY = 1_000  # repetitions that are as good as unlimited
_SEARCHES = frozenset({"search", "sub", "subn", "split", "findall", "finditer"})
_CALLS = frozenset({f"re.{name}" for name in (*_SEARCHES, "compile", "match", "fullmatch")})
_ALPHABET = [chr(code) for code in range(0x180)] + ["\u0661", "\u2028", "\u3000", "\ud800", "\U0001f600"]
_SETS = {_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY}
_BEGINNINGS = {_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING}
_REPEATS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT}


class _Piece(NamedTuple):
    """One set of characters of a pattern, or a place where it looks around (``chars`` is None: always the same)."""

    chars: frozenset[str] | None
    endless: bool = False
    optional: bool = False
    gives_back: bool = True  #: tried again with fewer characters when what follows does not match
    within: frozenset[object] = frozenset()  #: groups that the pattern can do without


_NOTHING = _Piece(frozenset())  # no character fits: an end of the text


class Used(NamedTuple):
    """A pattern and where it stands."""

    place: str
    pattern: str
    flags: int
    searched: bool  #: from every place of the text, and not only from its beginning


def patterns_of(source: Source) -> Iterator[Used]:
    """Yield all patterns that a file gives to ``re``. Raises ValueError for one that is not spelled out in it."""
    known = _constants_of(source)
    for call in source.calls:
        if called_name(call) not in _CALLS:
            continue
        place = f"{source}:{call.lineno}"
        try:
            pattern, *flags = (_value(each, known) for each in (call.args[0], *_flags_of(call)))
        except (NameError, TypeError, ValueError, SyntaxError) as error:
            raise ValueError(f"{place}: the pattern can't be read here ({error}): write it as a constant") from None
        name = called_name(call).removeprefix("re.")
        searched = name in _SEARCHES or (name == "compile" and _is_searched(source, call))
        yield Used(place, pattern, int(flags[0]) if flags else 0, searched)


def why_slow(pattern: str, flags: int = 0, *, searched: bool) -> str:
    r"""Return what makes a pattern slow, or nothing.

    >>> why_slow(r"[0-9]*\.?[0-9]*", searched=False)
    'two parts without end share a run of 0'
    >>> why_slow(r"[0-9]+(\.[0-9]*)?", searched=False), why_slow(r"(a+)*b", searched=False)
    ('', 'two parts without end share a run of a')
    """
    parsed = _parser.parse(pattern, flags)
    anywhere = [_Piece(frozenset(_ALPHABET), endless=True, optional=True)] if searched else []
    for way in _ways(parsed, parsed.state):
        if found := _shared([*anywhere, *way] if searched else [*way, _NOTHING]):
            return f"two parts without end share a run of {found}"
    return ""


def keeps_each_repetition(pattern: str, flags: int = 0) -> bool:
    """Return whether a pattern has a repeat without end that remembers each of its repetitions.

    >>> keeps_each_repetition('"(?:[^"]|"")*"'), keeps_each_repetition('"(?:[^"]|"")*+"')
    (True, False)
    """
    return any(_keeps(op, value) for op, value in _parts(_parser.parse(pattern, flags)))


def _keeps(op: Any, value: Any) -> bool:
    if op not in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
        return False
    _, most, inner = value
    return bool(most >= _MANY) and not _compiler._simple(inner)


def _parts(parsed: Any) -> Iterator[tuple[Any, Any]]:
    """Yield all parts of a pattern, at any depth."""
    if isinstance(parsed, _parser.SubPattern):
        for op, value in parsed:
            yield op, value
            yield from _parts(value)
    elif isinstance(parsed, list | tuple):
        for each in parsed:
            yield from _parts(each)


def _shared(way: list[_Piece]) -> str:
    """Return a character that two parts without end may share in a way that can fail; nothing if there are none."""
    for at, first in enumerate(way):
        if not first.endless or not first.chars or not first.gives_back:
            continue
        for then, piece in enumerate(way[at + 1 :], at + 1):
            if piece.chars is None:
                continue
            run = first.chars & piece.chars
            between = [other.chars for other in way[at + 1 : then] if other.chars is not None and not other.optional]
            # A run of what both match must be able to hold what has to stand between them.
            fits = all(chars & run for chars in between)
            can_fail = any(not other.optional and other.within <= piece.within for other in way[then + 1 :])
            if piece.endless and run and fits and can_fail:
                return min(run)
            if not piece.optional and not run:
                break  # no run of the first part reaches beyond
    return ""


def _ways(parsed: Any, state: Any) -> Iterator[list[_Piece]]:
    """Yield the pattern's branches, each as a row of its pieces. What repeats a group is the group, twice."""
    rows: list[list[_Piece]] = [[]]
    for op, value in parsed:
        choices = list(_pieces(op, value, state))
        rows = [row + choice for row in rows for choice in choices]
    yield from rows


def _pieces(op: Any, value: Any, state: Any) -> Iterable[list[_Piece]]:
    if op in _SETS:
        return [[_Piece(_set_of(op, value, state))]]
    if op in _REPEATS:
        return _repeated(op, value, state)
    if op is _constants.SUBPATTERN:
        return _ways(value[3], state)
    if op is _constants.ATOMIC_GROUP:
        return [[piece._replace(gives_back=False) for piece in way] for way in _ways(value, state)]
    if op is _constants.BRANCH:
        return [way for each in value[1] for way in _ways(each, state)]
    if op in (_constants.ASSERT, _constants.ASSERT_NOT):
        looked_for = _ways(value[1], state) if op is _constants.ASSERT else [[]]
        return [[*way] for way in looked_for]
    if op is _constants.AT:
        only_there = value in _BEGINNINGS and not state.flags & re.MULTILINE
        return [[_NOTHING if only_there else _Piece(None)]]
    raise ValueError(f"a pattern with {op} is not understood here: teach it, or write the pattern without")


def _repeated(op: Any, value: Any, state: Any) -> Iterator[list[_Piece]]:
    least, most, inner = value
    endless = most is _constants.MAXREPEAT or most >= _MANY
    gives_back = op is not _constants.POSSESSIVE_REPEAT
    if len(inner) == 1 and inner[0][0] in _SETS:
        chars = _set_of(*inner[0], state)
        yield [_Piece(chars, endless=endless, optional=least == 0, gives_back=gives_back)]
        return
    ways = list(_ways(inner, state))
    ways = [_in_group(way) for way in ways] if least == 0 else ways
    yield from ways
    if endless:
        yield from ([*one, *_in_group(other)] for one in ways for other in ways)
        yield from _alike(ways)
    if endless and all(len(way) == 1 for way in ways):  # one of several characters
        chars = frozenset(char for way in ways for char in way[0].chars or ())
        yield [_Piece(chars, endless=True, optional=least == 0, gives_back=gives_back)]
    if least == 0:
        yield []


def _in_group(way: list[_Piece]) -> list[_Piece]:
    """Return the pieces as those of a group of their own, which may not be there."""
    group = object()
    return [piece._replace(within=piece.within | {group}) for piece in way]


def _alike(ways: list[list[_Piece]]) -> Iterator[list[_Piece]]:
    """Yield what stands for two alternatives that begin alike.

    They may share a run. Where they go on differently they do not, so this refuses some that are fast.
    """
    for at, one in enumerate(ways):
        for other in ways[at + 1 :]:
            common = ((one and one[0].chars) or frozenset()) & ((other and other[0].chars) or frozenset())
            yield [_Piece(common, endless=True), _Piece(common, endless=True)] if common else []


def _set_of(op: Any, value: Any, state: Any) -> frozenset[str]:
    only = _parser.SubPattern(state, [(op, value)])
    matches = _compiler.compile(only, state.flags).fullmatch
    return frozenset(char for char in _ALPHABET if matches(char))


def _constants_of(source: Source) -> dict[str, Any]:
    known: dict[str, Any] = {"re": re}
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                known[node.targets[0].id] = _value(node.value, known)
            except (NameError, TypeError, ValueError):
                continue
    return known


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    if not all(isinstance(each, _PLAIN) for each in ast.walk(node)):
        raise ValueError(f"it is {ast.unparse(node)[:60]}")
    return eval(compile(ast.Expression(node), "<pattern>", "eval"), {"__builtins__": {}}, known)


_PLAIN = (ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Name, ast.BinOp, ast.operator, ast.Attribute, ast.Load)


def _flags_of(call: ast.Call) -> list[ast.expr]:
    given = [each.value for each in call.keywords if each.arg == "flags"]
    if called_name(call) in ("re.compile", "re.search", "re.match", "re.fullmatch"):
        given += call.args[1:2] if called_name(call) == "re.compile" else call.args[2:3]
    return given


def _is_searched(source: Source, call: ast.Call) -> bool:
    """Return True unless a compiled pattern's name is used for ``match`` and ``fullmatch`` only."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assign) and node.value is call and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            uses = [use.attr for use in ast.walk(source.tree) if isinstance(use, ast.Attribute) and _names(use, name)]
            return not uses or any(use in _SEARCHES for use in uses)
    return True


def _names(use: ast.Attribute, name: str) -> bool:
    return isinstance(use.value, ast.Name) and use.value.id == name
