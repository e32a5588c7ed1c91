"""Where a batch's jobs are in the journal, read page by page. Runs in a thread beside the event loop."""

from __future__ import annotations

from collections.abc import Iterator

from aiqueue.batch_protocol import ResultsCall
from aiqueue.engine.batches import RETRIED
from aiqueue.engine.groups import FAILED
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.journal.base import Journal, PartRow, StoredJob
from aiqueue.protocol import decode_header

_PAGE = 1_000
_PAGE_BYTES = 4 * 2**20  # of results, and the last one that fits in
_READ = 100  # jobs read at once


class BatchPages:
    """Pages over the jobs of one journal's batches."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

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
        """Return the seqs of the jobs that did not complete and have no successor, in the order of the batch."""
        wanted = {*FAILED, *([JobState.CANCELLED] if with_cancelled else [])}
        parts = self._journal.parts(number)
        replaced = {decode_header(job.header).redriven_from for job in self._successors(parts)}
        failed: list[tuple[int, int]] = []
        after = 0
        while seqs := self._journal.batch_ends(number, after=after, limit=_PAGE):
            after += len(seqs)
            failed += [
                (decode_header(job.header).index, job.seq)
                for job in self._journal.by_seq(seqs)
                if job.state in wanted and job.id not in replaced
            ]
        return [seq for _, seq in sorted(failed)]

    def _read(self, seqs: list[int]) -> Iterator[StoredJob | None]:
        """Yield jobs (None for one whose retention time is over) until their results fill a page."""
        size = 0
        for at in range(0, len(seqs), _READ):
            part = seqs[at : at + _READ]
            found = {job.seq: job for job in self._journal.by_seq(part)}
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
        for job in self._successors(parts):
            index = decode_header(job.header).index
            if index in seqs:
                seqs[index] = max(seqs[index], job.seq)
        return [seq for _, seq in sorted(seqs.items())]

    def _successors(self, parts: list[PartRow]) -> list[StoredJob]:
        found: list[StoredJob] = []
        for part in parts:
            if part.first_index == RETRIED:
                found += self._journal.by_seq(range(part.first_seq, part.first_seq + part.jobs))
        return found
