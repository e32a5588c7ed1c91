"""A journal that notes how many bytes of its rows one read returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aiqueue.journal.base import NO_LIMIT, StoredJob
from aiqueue.testing.memory_journal import MemoryJournal


class MeasuredJournal(MemoryJournal):
    """``most``: the bytes of the largest read since it was last set to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def _note(self, rows: Iterable[StoredJob]) -> None:
        sizes = (len(field) for row in rows for field in row if isinstance(field, bytes))
        self.most = max(self.most, sum(sizes))

    def payloads(self, seqs: Sequence[int], *, limit: int = NO_LIMIT) -> dict[int, bytes]:
        """As the journal's."""
        found = super().payloads(seqs, limit=limit)
        self.most = max(self.most, sum(map(len, found.values())))
        return found

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        """As the journal's."""
        found = super().jobs(ids, with_payload=with_payload, with_result=with_result, limit=limit)
        self._note(found.values())
        return found

    def attempts(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """As the journal's."""
        found = super().attempts(seqs)
        self.most = max(self.most, sum(len(body) for bodies in found.values() for body in bodies))
        return found

    def headers(self, *, from_seq: int, count: int) -> list[tuple[int, bytes]]:
        """As the journal's."""
        found = super().headers(from_seq=from_seq, count=count)
        self.most = max(self.most, sum(len(body) for _, body in found))
        return found

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """As the journal's, which reads an index and the states alone."""
        return {job_id: job.state or "queued" for job_id, job in MemoryJournal.jobs(self, ids).items()}

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True) -> list[StoredJob]:
        """As the journal's."""
        found = super().by_seq(seqs, with_payload=with_payload, with_result=with_result)
        self._note(found)
        return found
