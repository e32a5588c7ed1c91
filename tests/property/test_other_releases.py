"""Any message can be read by a release before or after: with a field more in it, anywhere, or with the newer ones left
out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from aiqueue.protocol import Wire
from aiqueue.versions import Version
from tests.tools.wire_shapes import messages

Change = Callable[[type[msgspec.Struct], list[Any]], list[Any]]
ARRAYS = [cls for cls in (*messages(), Version) if cls.__struct_config__.array_like and cls.__name__ != "_Sent"]


def a_message(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return st.builds(cls, **{field.name: a_value(field.type) for field in structs.fields(cls)})


def a_value(kind: Any) -> st.SearchStrategy[Any]:
    """Return values of a field; texts and numbers need no variety here, since it is their places that change."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.deferred(lambda: a_message(kind))
    origin, parts = getattr(kind, "__origin__", None), getattr(kind, "__args__", ())
    if origin is list:
        return st.lists(a_value(parts[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(a_value(parts[0]), a_value(parts[1]), max_size=2)
    if origin is tuple and parts[-1] is ...:
        return st.lists(a_value(parts[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(a_value, parts))
    if parts:  # of a union
        return st.one_of(*map(a_value, parts))
    return {
        str: st.text("ab", max_size=3),
        int: st.integers(0, 300),
        float: st.floats(0, 2e9),
        bytes: st.binary(max_size=3),
        bool: st.booleans(),
        datetime: st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
        type(None): st.none(),
        Any: st.none(),
    }[kind]


def as_sent(value: Any, change: Change) -> Any:
    """Return a message as its sender writes it, each message within it changed by ``change``."""
    if isinstance(value, msgspec.Struct) and value.__struct_config__.array_like:
        return change(type(value), [as_sent(getattr(value, name), change) for name in value.__struct_fields__])
    if isinstance(value, list | tuple):
        return [as_sent(each, change) for each in value]
    if isinstance(value, dict):
        return {key: as_sent(each, change) for key, each in value.items()}
    return value


def without_newer(value: Any, dropped: int) -> Any:
    """Return a message as an older sender means it: its last fields have their defaults, here and within it."""
    if isinstance(value, msgspec.Struct):
        fields = structs.fields(type(value))
        kept = len(fields) - min(dropped, sum(not field.required for field in fields))
        given = {field.name: without_newer(getattr(value, field.name), dropped) for field in fields[:kept]}
        return type(value)(**given)
    if isinstance(value, list | tuple):
        return type(value)(without_newer(each, dropped) for each in value)
    if isinstance(value, dict):
        return {key: without_newer(each, dropped) for key, each in value.items()}
    return value


def read(cls: type[msgspec.Struct], sent: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=cls)


@given(cls=st.sampled_from(ARRAYS), data=st.data())
def test_a_message_of_a_newer_release_is_read_without_what_is_new(cls: type[Wire], data: st.DataObject) -> None:
    message = data.draw(a_message(cls))
    new = data.draw(st.sampled_from([None, 7, "text", [["nested"]], {"a": 1}]))
    assert read(cls, as_sent(message, lambda _, parts: [*parts, new])) == message


@given(cls=st.sampled_from(ARRAYS), data=st.data())
def test_a_message_of_an_older_release_is_read_with_defaults_for_what_it_lacks(
    cls: type[Wire], data: st.DataObject
) -> None:
    message, dropped = data.draw(a_message(cls)), data.draw(st.integers(0, 40))

    def older(kind: type[msgspec.Struct], parts: list[Any]) -> list[Any]:
        optional = sum(not field.required for field in structs.fields(kind))
        return parts[: len(parts) - min(dropped, optional)]

    assert read(cls, as_sent(message, older)) == without_newer(message, dropped)
