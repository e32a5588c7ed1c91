"""Messages on the wire: what an older or a newer peer can still read."""

from __future__ import annotations

import msgspec
import pytest

from aiqueue import protocol
from aiqueue.protocol import Event, ExchangeCall, JobHeader, Outcome, Wire
from aiqueue.testing.jobs import completed, failed, header


def every(root: type) -> list[type]:
    return [root, *(found for child in root.__subclasses__() for found in every(child))]


MESSAGES = [cls for cls in every(Wire) if cls is not Wire]


def test_messages_survive_the_wire() -> None:
    call = ExchangeCall("w", "p", 3, [completed("a"), failed("b", 2)], [("c", 4)])
    assert protocol.decode_exchange_call(protocol.encode(call)) == call


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_every_message_is_an_array_of_which_only_the_front_is_required(cls: type) -> None:
    fields = msgspec.structs.fields(cls)
    required = [field.required for field in fields]
    assert required == sorted(required, reverse=True), "a field without a default can only be in front"
    assert cls.__struct_config__.array_like


def test_a_message_of_an_older_peer_lacks_the_newer_fields() -> None:
    older = protocol.encode(["chat_completion", "sim", "m", 2, "client"])
    assert protocol.decode_header(older) == JobHeader("chat_completion", "sim", "m", 2, "client")
    assert msgspec.msgpack.decode(protocol.encode(["a", 1]), type=Outcome) == Outcome("a", 1)


def test_a_message_of_a_newer_peer_has_fields_that_are_skipped() -> None:
    newer = [*msgspec.msgpack.decode(protocol.encode(header())), "something new"]
    assert protocol.decode_header(protocol.encode(newer)) == header()


def test_a_message_that_is_none_is_refused() -> None:
    for broken in (b"", b"\xff", protocol.encode({"a": 1}), protocol.encode([["a"]])):
        with pytest.raises(msgspec.DecodeError):
            protocol.decode_exchange_call(broken)


def test_ends_are_the_engines() -> None:
    from aiqueue.engine.publishing import EVENT_NAMES
    from aiqueue.engine.states import TERMINAL

    assert {state.value for state in TERMINAL} <= protocol.END_STATES
    assert {EVENT_NAMES[state] for state in TERMINAL} <= protocol.END_EVENTS
    assert not {name for state, name in EVENT_NAMES.items() if state not in TERMINAL} & protocol.END_EVENTS
    assert Event.__struct_fields__[:4] == ("number", "name", "at", "job_id")
