"""Jobs out of attempts: listed, and forgotten on request. To redrive one is to submit it again; clients do that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiqueue.call_size import PART_BYTES, size_of_view
from aiqueue.engine.effects import Effects, Rows
from aiqueue.engine.records import decode_progress
from aiqueue.engine.states import JobState
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import DeadLettersCall, DeadLettersReply, header_of
from aiqueue.service import lookup
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.look_ups import LookUps
from aiqueue.service.row_reads import dead_letters_of

_PAGE = 100  # rows read at once
_MOST_READ = 20_000  # rows looked at per call: a rare filter must not hold the journal's reader for ever
_LONG_AGO = 1.0  # 0 stands for "has not ended"


class DeadLetters:
    """The dead letters of one journal."""

    def __init__(
        self, journal: Journal, commits: CommitPipeline, look_ups: LookUps, *, is_needed: Callable[[str], bool]
    ) -> None:
        self._journal, self._commits, self._reads = journal, commits, look_ups.reads
        self._view_of = look_ups.view
        self._is_needed = is_needed  # by a job that has not ended

    async def find(self, call: DeadLettersCall) -> DeadLettersReply:
        """Return those that pass the filters, the newest first, with their attempts."""
        await asyncio.shield(self._commits.settled())
        found: list[StoredJob] = []
        before, looked_at, size, is_full = call.before_seq, 0, 0, False
        while looked_at < _MOST_READ:
            page = await asyncio.to_thread(dead_letters_of, self._journal, before, _PAGE)
            looked_at += len(page)
            for row in page:
                before = row.seq
                view = self._view_of(row, None)
                if lookup.is_wanted(view, call):
                    found.append(row)
                    size += size_of_view(view)
                    if is_full := len(found) == call.limit or size > PART_BYTES:
                        break
            if is_full:
                break
            if len(page) < _PAGE:
                before = 0
                break
        attempts = await asyncio.to_thread(self._journal.attempts, [row.seq for row in found])
        return DeadLettersReply([self._view_of(row, attempts.get(row.seq)) for row in found], before)

    async def count(self) -> int:
        """Return how many there are."""
        return await asyncio.to_thread(self._journal.count_dead_letters)

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there. Jobs in other states are left alone.

        One that a live job needs is no dead letter any more but stays, as a failed job, until retention takes it: what
        waits for it may go on after an error, and is given that error. One whose row can't be read stays; its error is
        raised if no other was asked for.
        """
        await asyncio.shield(self._commits.settled())
        stored, broken = await self._reads.jobs(ids)
        if broken and not stored:
            raise next(iter(broken.values()))
        dead = [job for job in stored.values() if job.state == JobState.DEAD_LETTER]
        if dead:
            keys = await self._keys_of(dead)
            rows = Rows(deletes=[job.seq for job in dead if not self._is_needed(job.id)], free_keys=keys)
            rows.states += [
                (job.seq, JobState.FAILED.value, job.progress, _end_of(job)) for job in dead if self._is_needed(job.id)
            ]
            await asyncio.shield(self._commits.append(Effects(rows=rows)))
        return [job.id for job in dead]

    async def _keys_of(self, dead: Sequence[StoredJob]) -> list[tuple[str, str]]:
        """Return the keys of jobs that were submitted alone. The key of a list or batch also stands for its others.

        If a header can't be decoded, its key is unknown and stays in use until retention deletes it.
        """
        headers = [(job.id, header) for job in dead if (header := header_of(job.header))]
        keys = {key: job_id for job_id, header in headers if (key := header.idempotency_key)}
        found = await asyncio.to_thread(self._journal.keys, list(keys)) if keys else {}
        return [(key, keys[key]) for key, stored in found.items() if stored.jobs == 1 and stored.batch is None]


def _end_of(job: StoredJob) -> float:
    """Return when a job ended; long ago if that can't be decoded: retention takes it as soon as no job needs it."""
    try:
        return decode_progress(job.progress).finished_at
    except ValueError:
        return _LONG_AGO
