"""How submitted jobs travel: in columns, with one header for all jobs that were submitted together.

A header of 18 fields for each of 100,000 jobs costs both sides more than the rest of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from aiqueue.errors import ValidationError
from aiqueue.protocol import BatchSpec, JobHeader, Refusal, Submission, SubmitGroup, SubmitReply, Wire, encode
from aiqueue.waiting import Parts


class _Packed(Wire):
    """A SubmitGroup in columns."""

    headers: list[JobHeader]
    which: list[int]  #: by job: the place of its header
    ids: list[str]
    payloads: list[bytes]
    maybe_known: bool
    batch: BatchSpec | None
    part_of: str
    metadata: bytes = b""


class _Sent(_Packed):
    """The same, its headers still encoded."""

    headers: list[msgspec.Raw]  # type: ignore[assignment]


_LARGE = 256 * 2**10  # bytes of a call, and of the headers that are decoded at once
_decode = msgspec.msgpack.Decoder(list[_Packed]).decode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_sent = msgspec.msgpack.Decoder(_Sent).decode
_decode_header = msgspec.msgpack.Decoder(JobHeader).decode

_UNDECODABLE = (ValueError, LookupError)  #: no MessagePack, no group, no UTF-8; or a job without its header


def encode_groups(groups: Sequence[SubmitGroup]) -> bytes:
    """Return ``groups`` as msgpack. Jobs whose headers are one object share it on the other side too."""
    return encode([_pack(group) for group in groups])


def decode_groups(sent: bytes) -> list[SubmitGroup]:
    """Return what ``encode_groups`` was given. Raises msgspec.MsgspecError if it was not made by it."""
    return [_unpack(packed, packed.headers) for packed in _decode(sent)]


class Received(NamedTuple):
    """What a call brought: its groups, and why others of it are refused, by their places in the call."""

    groups: list[SubmitGroup]
    refused: dict[int, Refusal]

    def whole(self, reply: SubmitReply) -> SubmitReply:
        """Return the answer to the call from that to its sound groups."""
        if not self.refused:
            return reply
        count = len(self.groups) + len(self.refused)
        places = [place for place in range(count) if place not in self.refused]
        answers: list[Refusal | None] = [self.refused.get(place) for place in range(count)]
        for place, answer in zip(places, reply.groups, strict=True):
            answers[place] = answer
        return SubmitReply(answers, reply.events, {places[at]: known for at, known in reply.known.items()})


def receive_in_parts(sent: bytes) -> Parts[Received]:
    """Return the groups of a call. One that can't be decoded is refused alone: others' jobs came with it.

    In parts, as a graph has large headers. Raises msgspec.MsgspecError for what is no list of anything.
    """
    if len(sent) <= _LARGE:
        try:
            return Received(decode_groups(sent), {})
        except _UNDECODABLE:
            pass  # find out which
    groups, refused = list[SubmitGroup](), dict[int, Refusal]()
    for place, raw in enumerate(_split(sent)):
        try:
            groups.append((yield from _decode_group(raw)))
        except _UNDECODABLE as error:
            refused[place] = Refusal(ValidationError.kind, f"can't be decoded by the queue: {error}")
        yield
    return Received(groups, refused)


def _decode_group(raw: msgspec.Raw) -> Parts[SubmitGroup]:
    packed = _decode_sent(raw)
    headers: list[JobHeader] = []
    size = 0
    for header in packed.headers:
        headers.append(_decode_header(header))
        size += len(memoryview(header))
        if size > _LARGE:
            yield
            size = 0
    return _unpack(packed, headers)


def _pack(group: SubmitGroup) -> _Packed:
    jobs = group.jobs
    headers = {id(job.header): job.header for job in jobs}
    places = {key: place for place, key in enumerate(headers)}
    which = [places[id(job.header)] for job in jobs]
    ids, payloads = [job.id for job in jobs], [job.payload for job in jobs]
    return _Packed(
        list(headers.values()), which, ids, payloads, group.maybe_known, group.batch, group.part_of, group.metadata
    )


def _unpack(packed: _Packed, decoded: Sequence[JobHeader]) -> SubmitGroup:
    headers = map(decoded.__getitem__, packed.which)
    jobs = list(map(Submission, packed.ids, headers, packed.payloads))
    return SubmitGroup(jobs, packed.maybe_known, packed.batch, packed.part_of, packed.metadata)
