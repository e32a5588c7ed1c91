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

    def jobs(self, ids: Iterable[str], *, with_payload: bool = False, limit: int = NO_LIMIT) -> dict[str, StoredJob]:
        """As the journal's."""
        found = super().jobs(ids, with_payload=with_payload, limit=limit)
        self._note(found.values())
        return found

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """As the journal's, which reads an index and the states alone."""
        return {job_id: job.state or "queued" for job_id, job in MemoryJournal.jobs(self, ids).items()}

    def weights(self, ids: Sequence[str], *, with_payload: bool) -> dict[str, int]:
        """As the journal's, which reads lengths alone."""
        jobs = MemoryJournal.jobs(self, ids, with_payload=with_payload)
        return {job_id: sum(len(part) for part in job if isinstance(part, bytes)) for job_id, job in jobs.items()}

    def dead_letters(self, *, before_seq: int, limit: int) -> list[StoredJob]:
        """As the journal's."""
        found = super().dead_letters(before_seq=before_seq, limit=limit)
        self._note(found)
        return found

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False) -> list[StoredJob]:
        """As the journal's."""
        found = super().by_seq(seqs, with_payload=with_payload)
        self._note(found)
        return found
