"""Jobs out of attempts: listed, and forgotten on request. To redrive one is to submit it again; clients do that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial

from aiqueue.call_size import PART_BYTES, count_within, size_of_view
from aiqueue.engine.effects import Effects
from aiqueue.engine.states import JobState
from aiqueue.journal.base import Journal, StoredJob
from aiqueue.protocol import DeadLettersCall, DeadLettersReply, header_of
from aiqueue.service import lookup
from aiqueue.service.commits import CommitPipeline
from aiqueue.service.deletions import Facts, rows_of_deletion
from aiqueue.service.look_ups import LookUps
from aiqueue.service.next_tries import NextTries, accepted_tries, next_tries_of
from aiqueue.service.portions import first_portion, portions
from aiqueue.service.row_reads import rows_of
from aiqueue.service.successors import Repeat, Successors, bare, repeat_of

_log = logging.getLogger(__name__)
_PAGE = 100  # rows read at once
_MOST_CHANGED = 3_000  # rows at once, by deletions: more of them would hold the queue's loop
_MOST_READ = 20_000  # rows looked at per call: a rare filter must not hold the journal's reader for ever


class DeadLetters:
    """The dead letters of one journal."""

    def __init__(
        self,
        journal: Journal,
        commits: CommitPipeline,
        look_ups: LookUps,
        successors: Successors,
        next_tries: NextTries,
        *,
        is_needed: Callable[[str], bool],
    ) -> None:
        self._journal, self._commits, self._reads = journal, commits, look_ups.reads
        self._view_of = look_ups.view
        self._successors, self._next_tries = successors, next_tries
        self._is_needed = is_needed  # by a job that has not ended
        self._deleting = asyncio.Lock()  # one after the other, so that the last of a list's jobs frees its key

    async def find(self, call: DeadLettersCall) -> DeadLettersReply:
        """Return those that pass the filters, the newest first, with their attempts."""
        if call.limit < 1:
            return DeadLettersReply([], call.before_seq)
        await asyncio.shield(self._commits.settled())
        found: list[StoredJob] = []
        before, looked_at, room = call.before_seq, 0, PART_BYTES
        while before and looked_at < _MOST_READ:
            rows, behind = await self._commits.read(self._read, before)
            looked_at += len(rows)
            views = [(row, self._view_of(row, None)) for row in rows]
            wanted = [(row, size_of_view(view)) for row, view in views if lookup.is_wanted(view, call)]
            attempts = await self._reads.attempt_sizes([row.seq for row, _ in wanted])
            sizes = [size + attempts.get(row.seq, 0) for row, size in wanted]
            count = 0 if found and sum(sizes[:1]) > room else count_within(sizes, room)
            count = min(count, call.limit - len(found))
            found += [row for row, _ in wanted[:count]]
            room -= sum(sizes[:count])
            if count < len(wanted):
                before = wanted[count][0].seq + 1
                break
            if len(found) == call.limit:
                before = found[-1].seq
                break
            before = behind
        tried, _ = await self._reads.attempts([row.seq for row in found])
        return DeadLettersReply([self._view_of(row, tried.get(row.seq)) for row in found], before)

    def _read(self, before: int) -> tuple[list[StoredJob], int]:
        """Return the next dead letters, and where those begin that come after them (0: there are none)."""
        seqs = self._journal.dead_letter_seqs(before_seq=before, limit=_PAGE)
        sizes = partial(self._journal.row_sizes, with_payload=False, with_result=False)
        portion, end = first_portion(seqs, sizes)
        behind = seqs[end - 1] if end < len(seqs) or end == _PAGE else 0
        return rows_of(self._journal, portion, with_result=False), behind

    async def count(self) -> int:
        """Return how many there are."""
        return await self._commits.read(self._journal.count_dead_letters)

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there. Jobs in other states are left alone.

        One that a live job needs is no dead letter any more but stays, as a failed job, until retention takes it: what
        waits for it may go on after an error, and is given that error. So does one whose successor lives or completed:
        its id and its key go on standing for that work, which is not to be done again. A redrive that was redriven
        itself stays as long as the job that it repeats: the way from that job to the last redrive leads through it. If
        all on that way are deleted, in whatever order, that job is as if it had not been redriven. One that ``map`` has
        tried again stays too. One whose row can't be read stays; its error is raised if no other was asked for.
        """
        async with self._deleting:
            return await self._delete(ids)

    async def _delete(self, ids: Sequence[str]) -> list[str]:
        while True:
            await asyncio.shield(self._commits.settled())
            with self._commits.watched() as later:
                facts, seqs = await self._facts(ids)
            changed = {row[0] for commit in later for row in commit.states}
            if changed.isdisjoint(seqs):  # else one may run again, or it or a redrive of it was repeated
                break
        dead = [job.id for job in facts.dead]
        if len(dead) > 1 and len(seqs) > _MOST_CHANGED:
            count = max(1, len(dead) * _MOST_CHANGED // len(seqs))
            gone: list[str] = []
            for at in range(0, len(dead), count):
                gone += await self._delete(dead[at : at + count])
            return gone
        if dead:
            facts = facts._replace(
                tried=facts.tried | accepted_tries(next_tries_of(dead), later),
                needed={job_id for job_id in dead if self._is_needed(job_id)},
                forgotten={seq for commit in later for seq in commit.deletes},
            )
            await asyncio.shield(self._commits.append(Effects(rows=rows_of_deletion(facts))))
        return dead

    async def _facts(self, ids: Sequence[str]) -> tuple[Facts, set[int]]:
        """Return what the journal says of a deletion; and the seqs of the rows that decide on it."""
        dead, keys, repeats = await self._stored(ids)
        living, passed = await self._successors.living([job.id for job in dead])
        tried = await self._next_tries.kept([job.id for job in dead])
        over = [job for job in dead if job.id not in living]
        over_repeats = {job.id: repeats[job.id] for job in over if job.id in repeats}
        deleted, others = await self._successors.predecessors(over_repeats)
        unused = {key: job_id for key, job_id in keys.items() if job_id not in living}
        free = await self._free(unused, repeats.keys(), [job.seq for job in over])
        facts = Facts(dead, deleted, others, living, tried, free=free)
        return facts, passed | {job.seq for job in (*dead, *deleted, *others)}

    async def _stored(self, ids: Sequence[str]) -> tuple[list[StoredJob], dict[str, str], dict[str, Repeat]]:
        """Return the dead letters among jobs, without headers; their ids by idempotency key; and what each repeats.

        If a header can't be decoded, its key is unknown and stays in use until retention deletes it.
        """
        states, broken = await self._reads.states(ids)
        asked = [job_id for job_id, state in states.items() if state == JobState.DEAD_LETTER]
        sizes = partial(self._journal.weights, with_payload=False, with_result=False)
        dead: list[StoredJob] = []
        keys: dict[str, str] = {}
        repeats: dict[str, Repeat] = {}
        for portion in await self._commits.read(list, portions(asked, sizes)):
            stored, unread = await self._reads.jobs(portion, with_result=False)
            broken |= unread
            for job in stored.values():
                if job.state == JobState.DEAD_LETTER:
                    dead.append(bare(job))
                    header = header_of(job.header)
                    keys |= {header.idempotency_key: job.id} if header and header.idempotency_key else {}
                    if repeat := repeat_of(header):
                        repeats[job.id] = repeat
        if broken and not dead and len(states) <= len(broken):
            raise next(iter(broken.values()))
        return dead, keys, repeats

    async def _free(self, keys: Mapping[str, str], redrives: Set[str], seqs: Sequence[int]) -> list[tuple[str, str]]:
        """Return the keys of jobs that were submitted alone, and of lists of which no other job is kept.

        The key of a batch also stands for the batch, except that of the redrive of a step: its batch is its own. A key
        that can't be read stays in use.
        """
        found = await self._reads.keys(list(keys))
        single = {key: keys[key] for key, stored in found.items() if stored.jobs == 1}
        alone = {(key, job_id) for key, job_id in single.items() if found[key].batch is None or job_id in redrives}
        of_lists = await self._commits.read(self._keys_of_lists, seqs) if seqs else []
        return [*alone, *(each for each in of_lists if each not in alone)]

    def _keys_of_lists(self, seqs: Sequence[int]) -> Sequence[tuple[str, str]]:
        try:
            return self._journal.keys_of_only(seqs)
        except Exception as error:
            _log.warning("the keys of lists of %d dead letters can't be read and stay in use: %s", len(seqs), error)
            return ()
