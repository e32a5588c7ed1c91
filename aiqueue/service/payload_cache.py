"""Payloads of waiting jobs that are still in memory. The journal has them all; this saves reading most of them."""

from __future__ import annotations

from collections.abc import Iterable


class PayloadCache:
    """Payloads by seq, up to ``budget`` bytes in all; what comes after that is not kept."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._bytes = 0
        self._kept: dict[int, bytes] = {}

    def put(self, seq: int, payload: bytes) -> None:
        """Keep ``payload`` if there is room."""
        if self._bytes + len(payload) <= self._budget:
            self._kept[seq] = payload
            self._bytes += len(payload)

    def take(self, seq: int) -> bytes | None:
        """Remove and return the payload, if it was kept."""
        payload = self._kept.pop(seq, None)
        if payload is not None:
            self._bytes -= len(payload)
        return payload

    def drop(self, seqs: Iterable[int]) -> None:
        """Forget payloads that nobody will claim."""
        for seq in seqs:
            if seq in self._kept:
                self.take(seq)
