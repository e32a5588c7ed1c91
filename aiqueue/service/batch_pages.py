"""Where a batch's jobs are in the journal, read page by page. Runs in a thread beside the event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from aiqueue.batch_protocol import ResultsCall
from aiqueue.call_size import parts_within
from aiqueue.engine.batches import RETRIED
from aiqueue.engine.group import FAILED
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.engine.successors import has_successor
from aiqueue.journal.base import Journal, PartRow, StoredJob
from aiqueue.protocol import header_of
from aiqueue.service.portions import first_portion, portions
from aiqueue.service.row_reads import rows_of

_PAGE = 1_000
_PAGE_BYTES = 4 * 2**20  # of rows; a larger one is a page of its own
_BATCHES = 4  # whose successors are remembered: some 100 bytes for each


class BatchPages:
    """Pages over the jobs of one journal's batches."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._sizes = partial(journal.row_sizes, with_payload=False, with_result=False)
        self._finding = threading.Lock()
        self._found: dict[int, tuple[int, dict[int, int]]] = {}  # by batch: parts with successors, seqs by place

    def page(self, number: int, call: ResultsCall) -> tuple[list[StoredJob], int]:
        """Return the next ended jobs of a batch, and the cursor behind them."""
        limit = max(1, min(call.limit, _PAGE))
        if call.ordered:
            seqs = self._by_index(number, call.after, limit)
        else:
            seqs = self._journal.batch_ends(number, after=call.after, limit=limit)
        sizes = partial(self._journal.row_sizes, with_payload=False, with_result=True)
        page, passed = first_portion(
            seqs, sizes, limit=_PAGE_BYTES
        )  # ``passed``: with those that retention has deleted
        rows = rows_of(self._journal, page)
        if call.ordered and not call.with_live:
            for at, job in enumerate(rows):
                if job.state not in TERMINAL:
                    return rows[:at], call.after + seqs.index(job.seq)
        return rows, call.after + passed

    def failed(self, number: int, with_cancelled: bool) -> dict[int, int]:
        """Return the jobs that did not complete and have no successor: by seq, how many others each needs.

        They come in the order of the batch. The successor of a redriven job is in no batch, or in another one. A job
        that can't be read or decoded is left out. So is one that is older than a successor that can't be decoded: that
        may be its own, and no job may run twice.
        """
        wanted = {*FAILED, *([JobState.CANCELLED] if with_cancelled else [])}
        replaced: set[str] = set()
        unclear = 0  # the last successor that can't be decoded
        for seq, body in self._successors(self._journal.parts(number)):
            if successor := header_of(body):
                replaced.add(successor.redriven_from)
            else:
                unclear = max(unclear, seq)
        failed: list[tuple[int, int, int]] = []
        after = 0
        while seqs := self._journal.batch_ends(number, after=after, limit=_PAGE):
            after += len(seqs)
            for portion in portions(seqs, self._sizes):
                failed += [
                    (header.index, job.seq, len(header.needs))
                    for job in rows_of(self._journal, portion, with_result=False)
                    if job.state in wanted and job.id not in replaced and job.seq > unclear
                    if not has_successor(job.progress)
                    if (header := header_of(job.header))
                ]
        return {seq: needs for _, seq, needs in sorted(failed)}

    def to_retry(self, failed: Mapping[int, int], most: int) -> Iterator[Sequence[int]]:
        """Yield the seqs of what ``failed`` found, in portions for one step each. ``again`` reads a portion at once.

        A portion has at most ``most`` jobs, and at most twice as many jobs and needs; or it is one job that needs more.
        """
        sizes = partial(self._journal.row_sizes, with_payload=True, with_result=False)
        for seqs in portions(list(failed), sizes, most=most):
            yield from parts_within(seqs, lambda seq: 1 + failed[seq], limit=2 * most, most=most)

    def again(self, seqs: Sequence[int]) -> list[StoredJob]:
        """Return jobs with all that is needed to make others like them."""
        return rows_of(self._journal, seqs, with_payload=True, with_result=False)

    def _by_index(self, number: int, after: int, limit: int) -> list[int]:
        """Return the seqs of the jobs that stand at places ``after`` and following: the last successor of each."""
        parts = self._journal.parts(number)
        seqs: dict[int, int] = {}
        for part in parts:
            if part.first_index != RETRIED:
                first, last = max(after, part.first_index), min(after + limit, part.first_index + part.jobs)
                seqs.update((index, part.first_seq + index - part.first_index) for index in range(first, last))
        successors = self._last_successors(number, parts)
        seqs.update((index, successors[index]) for index in seqs if index in successors)
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
                for seqs in portions(range(part.first_seq, part.first_seq + part.jobs), self._sizes):
                    yield from self._journal.headers(from_seq=seqs[0], count=seqs[-1] - seqs[0] + 1)
