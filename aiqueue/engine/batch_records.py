"""Batches as the journal has them."""

from __future__ import annotations

import msgspec

from aiqueue.protocol import Wire


class StoredBatch(Wire):
    """The part of a batch's journal row that changes. ``phase``: open, running, stopping, or how it ended."""

    phase: str = "open"
    paused: bool = False
    created_at: float = 0.0
    ended_at: float = 0.0
    total: int = 0
    ends: int = 0  #: that were numbered so far: more than there are jobs, once some were retried
    ended: dict[str, int] = msgspec.field(default_factory=dict)  #: by terminal state
    errors: dict[str, int] = msgspec.field(default_factory=dict)  #: by kind
    first_errors: list[tuple[str, str, str]] = msgspec.field(default_factory=list)  #: job id, kind, message
    reason: str = ""
    dropped: bool = False  #: given up before it was sealed, so being forgotten
    forgotten: int = 0  #: seq of the last job of a dropped one that was forgotten


encode_batch = msgspec.msgpack.Encoder().encode
decode_stored_batch = msgspec.msgpack.Decoder(StoredBatch).decode
