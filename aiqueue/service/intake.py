"""Accepting jobs. What may be known already is looked up first: jobs sent again, ids and keys chosen by callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import Any

from aiqueue.engine import QueueEngine, Submit
from aiqueue.engine.prepared import Prepared
from aiqueue.errors import DeadLetterNotFound, QueueUnavailable, RecordUnreadable
from aiqueue.journal.base import Journal
from aiqueue.protocol import Refusal, SubmitGroup, SubmitReply
from aiqueue.service import lookup
from aiqueue.service.asked import Answer
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.digests import key_of
from aiqueue.service.drops import Drops
from aiqueue.service.holds import Holds
from aiqueue.service.old_ids import OldIds
from aiqueue.service.rounds import Rounds
from aiqueue.waiting import Pace, Parts, in_parts

_log = logging.getLogger(__name__)
_PREPARED = 1_000  # jobs

Apply = Callable[[Submit], tuple[Any, Committed]]


class Intake:
    """Turns groups of submissions into Submit commands; each group is accepted whole or not at all.

    ``taken``: ids of jobs that the journal has, and a group brought again unmarked.
    """

    def __init__(
        self,
        apply: Apply,
        engine: QueueEngine,
        journal: Journal,
        commits: CommitPipeline,
        clock: Clock,
        taken: Set[str],
        holds: Holds,
        drops: Drops,
    ) -> None:
        self._apply, self._engine, self._journal, self._commits, self._clock = apply, engine, journal, commits, clock
        self._holds, self._drops = holds, drops
        self._prepared: dict[int, Prepared] = {}  # of the large groups in hand, by ``id``
        self.prepared_from = _PREPARED  #: jobs and needs of a group; as many are made ready in one turn
        self._rounds = Rounds(self._carry_out, engine, journal, commits, holds, self._prepared)
        self._old = OldIds(journal.newest_id(), taken)
        self._opened: list[set[str]] = []  # one for each submit that looks something up

    async def submit(self, groups: Sequence[SubmitGroup]) -> SubmitReply:
        """Answer when what was accepted is on disk."""
        if self._drops.under_way:
            await self._drops.let_pass(groups, self._may_be_known)
        large = [group for group in groups if self._is_large(group)]
        try:
            for group in large:
                await self._prepare(group)
            return await self._submit(groups)
        finally:
            for group in large:
                self._prepared.pop(id(group), None)

    def _is_large(self, group: SubmitGroup) -> bool:
        """Return True if the group would take too long in the one step that accepts it. Batches come in parts."""
        if group.part_of or (group.batch is not None and group.batch.is_open):
            return False
        return len(group.jobs) > self.prepared_from or _size(group) > self.prepared_from

    async def _prepare(self, group: SubmitGroup) -> None:
        """Do beforehand what accepting the group takes that concerns it alone, some jobs in each turn of the loop."""
        ready = self._prepared[id(group)] = self._engine.prepare(group)
        await in_parts(ready.in_parts(self.prepared_from, now=self._clock.now()))

    async def _submit(self, groups: Sequence[SubmitGroup]) -> SubmitReply:
        replies: list[Refusal | None] = [None] * len(groups)
        known: dict[int, str] = {}
        look_up = [self._may_be_known(group) for group in groups]
        fresh = [at for at, known in enumerate(look_up) if not known]
        if fresh:
            answers = await self._accept([groups[at] for at in fresh])
            replies = _spread(replies, fresh, answers)
        if len(fresh) < len(groups):
            rest = [at for at, looked_up in enumerate(look_up) if looked_up]
            answers, used = await self._accept_known([groups[at] for at in rest])
            replies = _spread(replies, rest, answers)
            known = {at: job_id for at, job_id in zip(rest, used, strict=True) if job_id}
        return SubmitReply(replies, known=known)

    def _may_be_known(self, group: SubmitGroup) -> bool:
        """Return True if the group may have been sent before, so that it must be looked up."""
        if group.maybe_known or key_of(group):
            return True
        return bool(group.jobs) and (bool(group.jobs[0].header.redriven_from) or self._old.may_hold(group))

    async def _accept(self, groups: Sequence[SubmitGroup]) -> list[Refusal | None]:
        """Accept new groups, some in each step."""
        replies: list[Refusal | None] = []
        commits: list[Committed] = []
        for portion in self._portions(groups):
            if replies:
                await asyncio.sleep(0)
            answers, committed = await self._accept_some(portion, later=bool(replies))
            replies += answers
            commits += [committed] if committed else []
        for committed in commits:
            await asyncio.shield(committed)
        if any(replies):
            await self._look_up_repeats(groups, replies)
        return replies

    def _portions(self, groups: Sequence[SubmitGroup]) -> Iterable[Sequence[SubmitGroup]]:
        """Divide groups so that each portion has few jobs and needs; a group is never divided."""
        if len(groups) == 1:
            yield groups
            return
        first, count = 0, 0
        for at, group in enumerate(groups):
            more = _size(group)
            if count and count + more > self.prepared_from:
                yield groups[first:at]
                first, count = at, 0
            count += more
        yield groups[first:]

    async def _accept_some(
        self, groups: Sequence[SubmitGroup], *, later: bool
    ) -> tuple[list[Refusal | None], Committed | None]:
        """Accept groups in one step. ``later``: the loop has turned since they were found to be new."""
        has_batch = any(group.batch is not None for group in groups)
        if has_batch:
            try:
                taken, ended = await self._facts(groups)
            except QueueUnavailable:
                raise
            except Exception as error:
                _log.warning("facts about %d groups could not be read together: %s", len(groups), error)
                return (await self._accept_known(groups))[0], None  # there each of them fails alone
        else:
            taken, ended = frozenset[str](), dict[str, str]()
        if (has_batch or later) and any(map(self._may_be_known, groups)):  # its repeat came meanwhile
            return (await self._accept_known(groups))[0], None
        replies, committed = self._carry_out(Submit(groups, ended=ended, batches=taken))
        return list(replies), committed

    async def _look_up_repeats(self, groups: Sequence[SubmitGroup], replies: list[Refusal | None]) -> None:
        """Accept groups of which a job behind the first one repeats a dead letter: that was not looked up yet."""
        unread = [at for at, reply in enumerate(replies) if reply and reply.kind == DeadLetterNotFound.kind]
        if unread:
            answers, _ = await self._accept_known([groups[at] for at in unread])
            _spread(replies, unread, answers)

    async def _accept_known(self, groups: Sequence[SubmitGroup]) -> tuple[list[Refusal | None], list[str]]:
        """Accept groups that may be known; also return the first jobs of those whose keys were used before.

        The error of a group is its own refusal: the others of the call are accepted, and their callers are to know. An
        error of the queue is raised: the client sends the whole call again, and finds what was accepted.
        """
        for group in groups:
            if group.maybe_known and group.jobs:
                self._old.note(group)
        replies: list[Refusal | None] = []
        known: list[str] = []
        for answered in self._rounds.ask(groups):
            try:
                answer = await answered
                if answer.committed is not None:
                    await asyncio.shield(answer.committed)
            except QueueUnavailable:
                raise
            except Exception as error:
                answer = Answer(_refused(error))
            replies.append(answer.refusal)
            known.append(answer.known)
        return replies, known

    def _carry_out(self, command: Submit) -> tuple[Any, Committed]:
        replies, committed = self._apply(replace(command, prepared=self._prepared) if self._prepared else command)
        if self._opened:
            self._note_opened(command.groups, replies)
        return replies, committed

    async def _facts(self, groups: Sequence[SubmitGroup]) -> tuple[Set[str], dict[str, str]]:
        """Return which batch ids are taken, and the ended jobs that are needed."""
        opened: set[str] = set()  # by others while this waits: such a batch may have ended and be in no commit yet
        self._opened.append(opened)
        try:
            taken = await self._taken(groups)
            ready = [found for group in groups if (found := self._prepared.get(id(group)))]
            small = [group.jobs for group in groups if group.batch is not None and id(group) not in self._prepared]
            needed = set[str]().union(*map(lookup.needs_of, small))
            ended = await lookup.ended_needs(needed, self._engine, self._journal, self._commits, self._holds)
            for each in ready:
                ended |= await self._meet(each)
            return taken | opened, ended
        finally:
            self._opened = [other for other in self._opened if other is not opened]  # equal ones are others'

    async def _meet(self, ready: Prepared) -> dict[str, str]:
        """Look up how the jobs outside a large group ended, and let it know. Accept it before the next await."""
        ended: dict[str, str] = {}
        with self._holds.hold(ready.outside.keys()):
            looked_up = set[str]()
            gone = await in_parts(self._not_live(ready.outside))
            is_met = False
            while gone or not is_met:
                if gone:
                    looked_up.update(gone)
                    await asyncio.shield(self._commits.settled())
                    ended |= await self._commits.read(lookup.read_ended, self._journal, gone)
                if not is_met:
                    await in_parts(ready.meet(ended, self.prepared_from))
                    is_met = True
                gone = [job_id for job_id in ready.ended_since() if job_id not in looked_up]
            return ended

    def _not_live(self, job_ids: Iterable[str]) -> Parts[list[str]]:
        pace, found = Pace(), list[str]()
        for job_id in job_ids:
            if not self._engine.knows(job_id):
                found.append(job_id)
            if pace.is_full():
                yield
        return found

    def _note_opened(self, groups: Sequence[SubmitGroup], replies: Sequence[Refusal | None]) -> None:
        for group, refusal in zip(groups, replies, strict=True):
            if group.batch is not None and refusal is None:
                for opened in self._opened:
                    opened.add(group.batch.id)

    async def _taken(self, groups: Sequence[SubmitGroup]) -> Set[str]:
        """Return those batch ids that the journal has. One that ends in its first job's id is as new as that job.

        Not so where the call was made before: its jobs may have ended and been deleted meanwhile.
        """
        batches = [group for group in groups if group.maybe_known or not _is_made_of_ids(group)]
        named = [group.batch.id for group in batches if group.batch is not None]
        if not named:
            return frozenset()
        await asyncio.shield(self._commits.settled())
        return await self._commits.read(self._known_batches, named)

    def _known_batches(self, ids: Iterable[str]) -> Set[str]:
        return {batch_id for batch_id in ids if self._journal.batch(batch_id) is not None}


def _refused(error: Exception) -> Refusal:
    """Return the refusal of a group that can't be looked up."""
    _log.error("a submit can't be looked up and is refused: %s: %s", type(error).__name__, error)
    return Refusal(
        RecordUnreadable.kind,
        f"The journal can't be read to see whether this was submitted before ({type(error).__name__}: {error}); "
        "nothing of it was accepted now. Check the journal's disk, then submit it again",
    )


def _size(group: SubmitGroup) -> int:
    """Return how many jobs and needs it has. Only jobs of a batch have needs."""
    count = len(group.jobs)
    if group.batch is not None or group.part_of:
        count += sum([len(job.header.needs) for job in group.jobs])
    return count


def _is_made_of_ids(group: SubmitGroup) -> bool:
    return group.batch is not None and bool(group.jobs) and group.batch.id.endswith(group.jobs[0].id)


def _spread(replies: list[Refusal | None], places: list[int], answers: list[Refusal | None]) -> list[Refusal | None]:
    for at, answer in zip(places, answers, strict=True):
        replies[at] = answer
    return replies
