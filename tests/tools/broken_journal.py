"""A journal of which some rows, or all, can't be read."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Sequence

from aiqueue.journal.base import NO_LIMIT, StoredJob
from aiqueue.testing.memory_journal import MemoryJournal


class BrokenJournal(MemoryJournal):
    """``broken``: ids of jobs whose rows raise, also when they are read alone. ``dead``: the disk reads nothing.

    ``broken_payloads``, ``broken_states``, ``broken_attempts``: ids of jobs of which that alone raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.broken_payloads: set[str] = set()
        self.broken_states: set[str] = set()
        self.broken_attempts: set[str] = set()
        self.dead = False
        self.reads = 0  #: that failed

    def _check_read(self, ids: Iterable[str], *, with_payload: bool = False) -> None:
        if self.dead:
            self.reads += 1
            raise OSError(errno.EIO, "Input/output error")
        self._check_part(self.broken | (self.broken_payloads if with_payload else set()), ids)

    def _check_part(self, broken: set[str], ids: Iterable[str]) -> None:
        if broken.intersection(ids):
            self.reads += 1
            raise sqlite3.DatabaseError("database disk image is malformed")

    def _ids_of(self, seqs: Sequence[int]) -> list[str]:
        return [self._disk.jobs[seq].id for seq in seqs if seq in self._disk.jobs]

    def payloads(self, seqs: Sequence[int], *, limit: int = NO_LIMIT) -> dict[int, bytes]:
        """As the journal's, or an error."""
        self._check_read(self._ids_of(seqs))
        return super().payloads(seqs, limit=limit)

    def jobs(
        self, ids: Iterable[str], *, with_payload: bool = False, with_result: bool = True, limit: int = NO_LIMIT
    ) -> dict[str, StoredJob]:
        """As the journal's, or an error."""
        self._check_read(ids := list(ids))
        return super().jobs(ids, with_payload=with_payload, with_result=with_result, limit=limit)

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """As the journal's: the states are in other rows than the jobs."""
        self._check_read(())
        self._check_part(self.broken_states, ids)
        return {job.id: job.state or "queued" for job in MemoryJournal.jobs(self, ids).values()}

    def attempts(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """As the journal's, or an error."""
        self._check_read(())
        self._check_part(self.broken_attempts, self._ids_of(seqs))
        return super().attempts(seqs)

    def by_seq(self, seqs: Sequence[int], *, with_payload: bool = False, with_result: bool = True) -> list[StoredJob]:
        """As the journal's, or an error."""
        self._check_read(self._ids_of(seqs), with_payload=with_payload)
        return super().by_seq(seqs, with_payload=with_payload, with_result=with_result)

    def sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """As the journal's, or an error."""
        self._check_read(self._ids_of(seqs))
        return super().sizes(seqs)

    def weights(self, ids: Sequence[str], *, with_payload: bool, with_result: bool = True) -> dict[str, int]:
        """As the journal's, or an error."""
        self._check_read(ids)
        return super().weights(ids, with_payload=with_payload, with_result=with_result)

    def row_sizes(self, seqs: Sequence[int], *, with_payload: bool, with_result: bool) -> dict[int, int]:
        """As the journal's, or an error."""
        self._check_read(self._ids_of(seqs))
        return super().row_sizes(seqs, with_payload=with_payload, with_result=with_result)

    def attempt_sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """As the journal's, or an error."""
        self._check_read(())
        self._check_part(self.broken_attempts, self._ids_of(seqs))
        return super().attempt_sizes(seqs)

    def outlines(self, seqs: Sequence[int]) -> list[StoredJob]:
        """As the journal's, or an error."""
        self._check_read(())
        return super().outlines(seqs)
