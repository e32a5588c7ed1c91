"""Large groups of linked jobs, made ready before the step that accepts them.

A chain of 25,000 steps exists whole or not at all, so one step accepts it and one commit holds it. At eleven
microseconds a job that step stopped the queue for a quarter of a second. What concerns the group alone is therefore
done beforehand, some jobs at a time: records, rows, and who waits for whom inside. Nothing of it can be seen until the
step, which then only puts together what is there, and checks it against what has happened meanwhile.

A job that can't run, because one that it needs failed before, ends at once in a group that is not made ready. Here such
jobs end some at a time: there may be thousands. So they may end in another order, which also decides which of several
failed needs the error names, and where a batch that stops at a failure stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aiqueue.engine import batches
from aiqueue.engine.commands import Submit
from aiqueue.engine.core import Core
from aiqueue.engine.dependencies import ON_ERROR, Ended
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.errors import DuplicateBatch, ValidationError
from aiqueue.protocol import JobHeader, Need, Refusal, Submission, SubmitGroup, encode


class Prepared:
    """One group, as far as it is ready. Not ``is_sound``: it will be refused, the usual way says why."""

    def __init__(self, core: Core, group: SubmitGroup) -> None:
        assert group.batch is not None
        self._core, self.group, self._batch_id = core, group, group.batch.id
        self.is_sound = True
        self.jobs: dict[str, JobRecord] = {}  #: by id, in order; their seqs are those of acceptance
        self.headers: list[bytes] = []
        self.timed: list[tuple[JobRecord, JobHeader]] = []  #: those with a date, an expiry or ``fail_fast``
        self.levels: Counter[int] = Counter()
        self.needs: dict[str, tuple[Need, ...]] = {}
        self.on_error: dict[str, str] = {}
        self.needed: dict[str, int] = {}  #: how often each job is needed
        self.missing: dict[str, int] = {}  #: by job: how many others it needs
        self.children: dict[str, list[str]] = {}  #: by job of the group: those that need it
        self.outside: dict[str, list[str]] = {}  #: by job of others: those that need it

    def in_parts(self, most: int, *, now: float) -> Iterator[None]:
        """Make the jobs ready, ``most`` for each item that is asked for."""
        for begun in range(0, len(self.group.jobs), most):
            for submitted in self.group.jobs[begun : begun + most]:
                self.is_sound = self.is_sound and self._add(submitted, now)
            yield

    def _add(self, submitted: Submission, now: float) -> bool:
        header, job_id = submitted.header, submitted.id
        if job_id in self.jobs or header.batch_id != self._batch_id:
            return False
        if header.needs:
            if header.on_error not in ON_ERROR:
                return False
            self._link(job_id, header)
        header.created_at = now
        job = self.jobs[job_id] = JobRecord(0, job_id, *self._core.common(header), JobState.BLOCKED)
        self.headers.append(encode(header))
        self.levels[header.level] += 1
        if header.run_at or header.fail_fast or header.expires_at or header.expires_in_ms:
            self.timed.append((job, header))
        return True

    def _link(self, job_id: str, header: JobHeader) -> None:
        self.needs[job_id], self.on_error[job_id] = header.needs, header.on_error
        parents = {need.job_id for need in header.needs}
        for need in header.needs:
            self.needed[need.job_id] = self.needed.get(need.job_id, 0) + 1
        for parent in parents:
            (self.children if parent in self.jobs else self.outside).setdefault(parent, []).append(job_id)
        self.missing[job_id] = len(parents)

    def is_new(self, command: Submit) -> bool:
        """Return True if none of its jobs is known: what it says holds."""
        known = command.journaled.keys().isdisjoint(self.jobs) and self._core.live.keys().isdisjoint(self.jobs)
        return self.is_sound and known

    def refusal(self, command: Submit) -> Refusal | None:
        """Return why the group can't be accepted any more."""
        if batches.is_taken(self._core, self._batch_id) or self._batch_id in command.batches:
            return Refusal(DuplicateBatch.kind, self._batch_id)
        for needed, children in self.outside.items():
            if needed not in command.ended and needed not in self._core.live:
                return Refusal(ValidationError.kind, f"needs job {needed}, which is not known", children[0])
        return None


def prepared_of(group: SubmitGroup, command: Submit) -> Prepared | None:
    """Return what was made ready of a group, if all of it still holds."""
    ready = command.prepared.get(group.batch.id) if group.batch is not None else None
    return ready if ready is not None and ready.group is group and ready.is_new(command) else None


def accept(core: Core, turn: Turn, ready: Prepared, command: Submit) -> None:
    """Take a group that nothing speaks against. Like a batch sent in parts it is announced as one."""
    assert ready.group.batch is not None
    group = batches.open_batch(core, turn, ready.group.batch)
    jobs, first = list(ready.jobs.values()), core.counters.next_seq
    turn.rows.parts.append((group.no, first, len(jobs), ready.group.jobs[0].header.index))
    group.stored.total += len(jobs)
    core.record_all(ready.jobs, ready.levels, group)
    for job, header in ready.timed:
        core.note_times(job, header)
    payloads = [submitted.payload for submitted in ready.group.jobs]
    turn.rows.jobs += zip(range(first, first + len(jobs)), ready.jobs, ready.headers, payloads, strict=True)
    core.links.add_all(ready.needs, ready.on_error, ready.missing, ready.children, ready.needed)
    _join(core, ready, command)
    batches.release(core, turn, group)


def _join(core: Core, ready: Prepared, command: Submit) -> None:
    """Let jobs of the group wait for those of others; of those that have ended they hear in turns, as of any end."""
    for needed, children in ready.outside.items():
        if needed in core.live:
            core.links.await_job(needed, children)
        else:
            ended = Ended(needed, JobState(command.ended[needed]))
            core.links.freed.append((ended, children[::-1]))
