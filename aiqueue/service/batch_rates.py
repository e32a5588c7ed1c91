"""Jobs per second of each batch. Only batches that somebody asks about are measured: most chains are not."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.group import Group

_MARKS = 31  # one a second: the rate is taken over half a minute
_SOON_S = 5.0  # marks that go back less far say too little
_KEPT_S = 60.0  # after the last question


class _Marks:
    """How many jobs of one batch had ended, second by second."""

    def __init__(self) -> None:
        self.marks: deque[tuple[float, int]] = deque(maxlen=_MARKS)
        self.asked_at = 0.0


class BatchRates:
    """The rates of one queue's batches."""

    def __init__(self) -> None:
        self._of: dict[str, _Marks] = {}
        self._marked_at = 0.0

    def __len__(self) -> int:
        return len(self._of)

    def of(self, batch_id: str, stored: StoredBatch, *, live: bool, now: float) -> float:
        """Return jobs that ended per second: lately, or over the whole life of a batch that has ended.

        Over the life so far, for one that was not asked about lately.
        """
        if not live:
            return stored.ends / max(1e-3, stored.ended_at - stored.created_at)
        kept = self._of.setdefault(batch_id, _Marks())
        kept.asked_at = now
        since, before = kept.marks[0] if kept.marks else (now, 0)
        if since > now - _SOON_S:
            since, before = stored.created_at, 0
        return (stored.ends - before) / max(1e-3, now - since)

    def tick(self, live: Mapping[str, Group], *, now: float) -> None:
        """Note how far the batches are that are asked about, once a second."""
        if now < self._marked_at + 1.0:
            return
        self._marked_at = now
        for batch_id, kept in list(self._of.items()):
            group = live.get(batch_id)
            if group is None or kept.asked_at < now - _KEPT_S:
                del self._of[batch_id]
            else:
                kept.marks.append((now, group.stored.ends))
