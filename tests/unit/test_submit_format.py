"""Submitted jobs on the wire: nothing is lost, and what is shared is sent once."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from aiqueue import protocol
from aiqueue.protocol import BatchSpec, Need, Refusal, SubmitGroup, SubmitReply
from aiqueue.submit_format import decode_groups, encode_groups, receive_in_parts
from aiqueue.testing.jobs import group, header, submission
from aiqueue.waiting import at_once


def test_groups_survive_the_wire() -> None:
    one = submission("a", header(tags=("t", "ü")), bytes(range(256)))
    groups = [group(one, maybe_known=True), SubmitGroup([]), group("b", "c")]
    assert decode_groups(encode_groups(groups)) == groups


def test_a_header_of_many_jobs_is_sent_once_and_shared_again() -> None:
    shared, other = header(tags=("a long tag that would be seen twice",)), header(owner="client-b")
    sent = encode_groups(
        [group(*(submission(name, what) for name, what in zip("abc", (shared, other, shared), strict=True)))]
    )
    assert sent.count(b"a long tag") == 1
    ((first, second, third),) = (found.jobs for found in decode_groups(sent))
    assert first.header is third.header
    assert (first.header, second.header) == (shared, other)


@pytest.mark.parametrize("broken", [b"", b"\xff", protocol.encode({"a": 1}), protocol.encode([["a"]])])
def test_what_is_no_group_is_refused(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_groups(broken)


def test_a_large_call_is_decoded_in_parts_to_the_same_groups() -> None:
    ids = [f"{n:036}" for n in range(300)]
    jobs = [
        submission(job_id, replace(header(batch_id="g"), index=at, needs=tuple(map(Need, ids[:at]))))
        for at, job_id in enumerate(ids)
    ]
    sent = encode_groups([group("a"), SubmitGroup(jobs, batch=BatchSpec("g", "graph"))])
    assert at_once(receive_in_parts(sent)).groups == decode_groups(sent)
    assert len(list(receive_in_parts(sent))) >= len(sent) // (256 * 2**10 + 12_000)


def test_a_small_call_is_decoded_at_once() -> None:
    sent = encode_groups([group("a", "b")])
    assert list(receive_in_parts(sent)) == []
    assert at_once(receive_in_parts(sent)).groups == decode_groups(sent)


@pytest.mark.parametrize("broken", [b"", b"\xff", protocol.encode({"a": 1}), protocol.encode([["a"]])])
def test_a_large_call_that_is_no_group_is_refused(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        at_once(receive_in_parts(broken + bytes(300_000)))


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_group_that_can_not_be_decoded_is_refused_alone(size: int) -> None:
    sound = [group(name) for name in "abc"]
    large = group(submission("large", payload=bytes(size)))
    odd = group("d")
    odd.jobs[0].header.needs = (Need(5),)  # type: ignore[arg-type]
    received = at_once(receive_in_parts(encode_groups([sound[0], odd, sound[1], large, sound[2]])))
    assert received.groups == [sound[0], sound[1], large, sound[2]]
    assert [(place, refusal.kind) for place, refusal in received.refused.items()] == [(1, "invalid_input")]
    full = Refusal("queue_full", "full")
    whole = received.whole(SubmitReply([None, full, None, None], known={0: "x", 2: "y"}))
    assert (whole.groups, whole.known) == ([None, received.refused[1], full, None, None], {0: "x", 3: "y"})
