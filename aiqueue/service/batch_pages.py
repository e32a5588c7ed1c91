"""Where a batch's jobs are in the journal, read page by page. Runs in a thread beside the event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from aiqueue.batch_protocol import ResultsCall
from aiqueue.engine.batches import RETRIED
from aiqueue.engine.groups import FAILED
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.journal.base import Journal, PartRow, StoredJob
from aiqueue.protocol import header_of
from aiqueue.service.row_reads import rows_of

_PAGE = 1_000
_PAGE_BYTES = 4 * 2**20  # of results, and the last one that fits in
_READ = 100  # jobs read at once
_BATCHES = 4  # whose successors are remembered: some 100 bytes for each


class BatchPages:
    """Pages over the jobs of one journal's batches."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._finding = threading.Lock()
        self._found: dict[int, tuple[int, dict[int, int]]] = {}  # by batch: parts with successors, seqs by place

    def page(self, number: int, call: ResultsCall) -> tuple[list[StoredJob], int]:
        """Return the next ended jobs of a batch, and the cursor behind them."""
        limit = max(1, min(call.limit, _PAGE))
        if not call.ordered:
            jobs = list(self._read(self._journal.batch_ends(number, after=call.after, limit=limit)))
            return [job for job in jobs if job is not None], call.after + len(jobs)
        rows: list[StoredJob] = []
        passed = 0
        for job in self._read(self._by_index(number, call.after, limit)):
            if job is not None and job.state not in TERMINAL and not call.with_live:
                break
            passed += 1
            if job is not None:
                rows.append(job)
        return rows, call.after + passed

    def failed(self, number: int, with_cancelled: bool) -> list[int]:
        """Return the seqs of the jobs that did not complete and have no successor, in the order of the batch.

        One that can't be read or decoded is left out. So is one that may have a successor: some successor that is
        younger can't be decoded, and no job may run twice.
        """
        wanted = {*FAILED, *([JobState.CANCELLED] if with_cancelled else [])}
        replaced: set[str] = set()
        unclear = 0  # the last successor that can't be decoded
        for seq, body in self._successors(self._journal.parts(number)):
            if successor := header_of(body):
                replaced.add(successor.redriven_from)
            else:
                unclear = max(unclear, seq)
        failed: list[tuple[int, int]] = []
        after = 0
        while seqs := self._journal.batch_ends(number, after=after, limit=_PAGE):
            after += len(seqs)
            failed += [
                (header.index, job.seq)
                for job in rows_of(self._journal, seqs)
                if job.state in wanted and job.id not in replaced and job.seq > unclear
                if (header := header_of(job.header))
            ]
        return [seq for _, seq in sorted(failed)]

    def _read(self, seqs: list[int]) -> Iterator[StoredJob | None]:
        """Yield jobs (None for one whose retention time is over) until their results fill a page."""
        size = 0
        for at in range(0, len(seqs), _READ):
            part = seqs[at : at + _READ]
            found = {job.seq: job for job in rows_of(self._journal, part)}
            for seq in part:
                job = found.get(seq)
                yield job
                size += len(job.result) + len(job.metadata) if job else 0
                if size >= _PAGE_BYTES:
                    return

    def _by_index(self, number: int, after: int, limit: int) -> list[int]:
        """Return the seqs of the jobs that stand at places ``after`` and following: the last successor of each."""
        parts = self._journal.parts(number)
        seqs: dict[int, int] = {}
        for part in parts:
            if part.first_index != RETRIED:
                first, last = max(after, part.first_index), min(after + limit, part.first_index + part.jobs)
                seqs.update((index, part.first_seq + index - part.first_index) for index in range(first, last))
        heirs = self._last_successors(number, parts)
        seqs.update((index, heirs[index]) for index in seqs if index in heirs)
        return [seq for _, seq in sorted(seqs.items())]

    def _last_successors(self, number: int, parts: list[PartRow]) -> Mapping[int, int]:
        """Return the seq of the last successor by place in the batch. Each part is read once, while it is kept."""
        retried = [part for part in parts if part.first_index == RETRIED]
        with self._finding:
            known, last = self._found.pop(number, (0, {}))
            for seq, body in self._successors(retried[known:]):
                if header := header_of(body):  # else the job that it replaced is shown
                    last[header.index] = seq  # later parts have higher seqs
            if retried:
                self._found[number] = len(retried), last
            if len(self._found) > _BATCHES:
                del self._found[next(iter(self._found))]
        return last

    def _successors(self, parts: list[PartRow]) -> Iterator[tuple[int, bytes]]:
        for part in parts:
            if part.first_index == RETRIED:
                yield from self._journal.headers(from_seq=part.first_seq, count=part.jobs)
