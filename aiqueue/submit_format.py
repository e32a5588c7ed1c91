"""How submitted jobs travel: in columns, with one header for all jobs that were submitted together.

A header of 18 fields for each of 100,000 jobs costs both sides more than the rest of the call.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aiqueue.protocol import BatchSpec, JobHeader, Submission, SubmitGroup, Wire, encode
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
_decode_sent = msgspec.msgpack.Decoder(list[_Sent]).decode
_decode_header = msgspec.msgpack.Decoder(JobHeader).decode


def encode_groups(groups: Sequence[SubmitGroup]) -> bytes:
    """Return ``groups`` as msgpack. Jobs whose headers are one object share it on the other side too."""
    return encode([_pack(group) for group in groups])


def decode_groups(sent: bytes) -> list[SubmitGroup]:
    """Return what ``encode_groups`` was given. Raises msgspec.MsgspecError if it was not made by it."""
    return [_unpack(packed, packed.headers) for packed in _decode(sent)]


def decode_in_parts(sent: bytes) -> Parts[list[SubmitGroup]]:
    """As ``decode_groups``, in parts: a graph has large headers."""
    if len(sent) <= _LARGE:
        return decode_groups(sent)
    groups: list[SubmitGroup] = []
    for packed in _decode_sent(sent):
        headers: list[JobHeader] = []
        size = 0
        for raw in packed.headers:
            headers.append(_decode_header(raw))
            size += len(memoryview(raw))
            if size > _LARGE:
                yield
                size = 0
        groups.append(_unpack(packed, headers))
        yield
    return groups


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
