"""Where a batch's jobs are in the journal, read page by page. Runs in a thread beside the event loop."""

from __future__ import annotations

from aiqueue.batch_protocol import ResultsCall
from aiqueue.engine.batches import RETRIED
from aiqueue.engine.groups import FAILED
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.journal.base import Journal, PartRow, StoredJob
from aiqueue.protocol import decode_header

_PAGE = 1_000


class BatchPages:
    """Pages over the jobs of one journal's batches."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def page(self, number: int, call: ResultsCall) -> tuple[list[StoredJob], int]:
        """Return the next ended jobs of a batch, and the cursor behind them."""
        limit = max(1, min(call.limit, _PAGE))
        if not call.ordered:
            seqs = self._journal.batch_ends(number, after=call.after, limit=limit)
            return self._journal.by_seq(seqs), call.after + len(seqs)
        seqs = self._by_index(number, call.after, limit)
        found = {job.seq: job for job in self._journal.by_seq(seqs)}
        rows: list[StoredJob] = []
        for at, seq in enumerate(seqs):
            job = found.get(seq)
            if job is not None and job.state not in TERMINAL and not call.with_live:
                return rows, call.after + at
            if job is not None:  # and its retention time is not over
                rows.append(job)
        return rows, call.after + len(seqs)

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
