"""Large groups of jobs, made ready before the step that accepts them: chains, graphs, and lists with a key.

A chain of 25,000 steps exists whole or not at all, so one step accepts it and one commit holds it. At eleven
microseconds a job that step stopped the queue for a quarter of a second. What concerns the group alone is therefore
done beforehand, some jobs at a time: records, rows, and who waits for whom inside. Nothing of it can be seen until the
step, which only puts together what is there and checks it against what has happened since.

A job that can't run, because one that it needs failed before, ends at once in a group that is not made ready. Here such
jobs end some at a time: there may be thousands. So they may end in another order, which also decides which of several
failed needs the error names, and where a batch that stops at a failure stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence

from aiqueue.engine import batches, soundness
from aiqueue.engine.commands import Submit
from aiqueue.engine.core import Core
from aiqueue.engine.dependencies import ON_ERROR, Ended, broken, excess
from aiqueue.engine.effects import JobRows
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import Common, JobRecord
from aiqueue.engine.states import JobState
from aiqueue.errors import DuplicateBatch, ValidationError
from aiqueue.protocol import JobHeader, Need, Refusal, Submission, SubmitGroup, encode


class Prepared:
    """One group, as far as it is ready. If it is not ``is_sound``, ``admission`` takes it or says why it is refused."""

    def __init__(self, core: Core, group: SubmitGroup) -> None:
        self._core, self.group = core, group
        self._batch_id = group.batch.id if group.batch is not None else ""
        is_sound = group.batch is None or not soundness.fault_in_spec(group.batch)
        self.is_sound = is_sound and not excess(len(job.header.needs) for job in group.jobs)
        self.jobs: dict[str, JobRecord] = {}  #: by id, in order; their seqs are those of acceptance
        self.headers: list[bytes] = []
        self.payloads: list[bytes] = []
        self.bytes = 0  #: of the payloads
        self.timed: dict[str, JobHeader] = {}  #: by id: of those with a date, an expiry or ``fail_fast``
        self.levels: Counter[int] = Counter()
        self.batches: Counter[str] = Counter()  #: how many jobs say that they are of each batch
        self.needs: dict[str, Sequence[Need]] = {}
        self.on_error: dict[str, str] = {}
        self.needed: dict[str, int] = {}  #: how often each job is needed
        self.missing: dict[str, int] = {}  #: by job: how many others it needs
        self.children: dict[str, list[str]] = {}  #: by job of the group: those that need it
        self.outside: dict[str, list[str]] = {}  #: by job of others: those that need it
        self.keys: set[str] = set()  #: idempotency keys
        self._last: tuple[JobHeader, Common, bytes] | None = None  # of a list all jobs have one header

    def in_parts(self, most: int, *, now: float) -> Generator[None, None, None]:
        """Make the jobs ready; yield after each ``most`` jobs and needs."""
        left = most
        for submitted in self.group.jobs:
            if not self.is_sound:
                return
            self.is_sound = self._add(submitted, now)
            left -= 1 + len(submitted.header.needs)
            if left <= 0:
                yield
                left = most
        if left < most:
            yield

    def _add(self, submitted: Submission, now: float) -> bool:
        header, job_id = submitted.header, submitted.id
        if job_id in self.jobs or (self._batch_id and header.batch_id != self._batch_id):
            return False
        if header.redriven_from:  # accepted in the usual way, which checks the dead letter and notes its successor
            return False
        if header.needs:
            if header.on_error not in ON_ERROR or not self._batch_id:
                return False
            self._link(job_id, header)
        if self._last is None or self._last[0] is not header:
            if not soundness.is_usual(header) and soundness.fault_in_header(header, len(self._core.levels)):
                return False
            header.created_at = now
            self._last = header, self._core.common(header), encode(header)
        _, common, row = self._last
        self.jobs[job_id] = JobRecord(0, job_id, *common, JobState.BLOCKED)
        self.headers.append(row)
        self.payloads.append(submitted.payload)
        self.bytes += len(submitted.payload)
        self.levels[header.level] += 1
        if header.batch_id:
            self.batches[header.batch_id] += 1
        if header.idempotency_key:
            self.keys.add(header.idempotency_key)
        if header.run_at or header.fail_fast or header.expires_at or header.expires_in_ms:
            self.timed[job_id] = header
        return True

    def _link(self, job_id: str, header: JobHeader) -> None:
        self.needs[job_id], self.on_error[job_id] = header.needs, header.on_error
        parents = {need.job_id for need in header.needs}
        for need in header.needs:
            self.needed[need.job_id] = self.needed.get(need.job_id, 0) + 1
        for parent in parents:
            (self.children if parent in self.jobs else self.outside).setdefault(parent, []).append(job_id)
        self.missing[job_id] = len(parents)

    def rows(self, first: int) -> JobRows:
        """Return the jobs' rows; ``first``: the seq of the first one."""
        return JobRows(first, self.jobs.keys(), self.headers, self.payloads)

    def is_new(self, command: Submit) -> bool:
        """Return True if it is sound and none of its jobs is known."""
        ids = self.jobs.keys()  # a view: the smaller one of two is looked through
        known = command.journaled.keys().isdisjoint(ids) and self._core.live.keys().isdisjoint(ids)
        return self.is_sound and known

    def refusal(self, command: Submit) -> Refusal | None:
        """Return why the group can't be accepted any more; None if it can."""
        if not self._batch_id:
            taken = self.batches.keys() & self._core.groups.live.keys()
            return Refusal(DuplicateBatch.kind, min(taken)) if taken else None
        if batches.is_taken(self._core, self._batch_id) or self._batch_id in command.batches:
            return Refusal(DuplicateBatch.kind, self._batch_id)
        for needed, children in self.outside.items():
            if needed not in command.ended and needed not in self._core.live:
                return Refusal(ValidationError.kind, f"needs job {needed}, which is not known", children[0])
        return None


def prepared_of(group: SubmitGroup, command: Submit) -> Prepared | None:
    """Return a group as it was made ready; None if it must be accepted the usual way."""
    ready = command.prepared.get(id(group))
    return ready if ready is not None and ready.is_new(command) else None


def accept(core: Core, turn: Turn, ready: Prepared, command: Submit) -> None:
    """Accept a group that may not be refused any more. It is announced as one, like a batch that is sent in parts."""
    assert ready.group.batch is not None
    group = batches.open_batch(core, turn, ready.group.batch)
    count, first = len(ready.jobs), core.counters.next_seq
    turn.rows.parts.append((group.no, first, count, ready.group.jobs[0].header.index))
    turn.rows.lists.append(ready.rows(first))
    group.stored.total += count
    core.record_all(ready.jobs, ready.levels, ready.batches)
    group.join_all(ready.jobs.values())
    for job_id, header in ready.timed.items():
        core.note_times(ready.jobs[job_id], header)
    core.links.add_all(ready.needs, ready.on_error, ready.missing, ready.children, ready.needed)
    _join(core, ready, command)
    batches.release(core, turn, group, ready.levels)


def _join(core: Core, ready: Prepared, command: Submit) -> None:
    """Let jobs of the group wait for jobs outside. Those that a failed one stops end in later turns."""
    links = core.links
    for needed, children in ready.outside.items():
        if needed in core.live:
            links.await_job(needed, children)
            continue
        state = JobState(command.ended[needed])
        told = [job_id for job_id in children if broken(links.on_error[job_id], state)]
        if told:
            links.freed.append((Ended(needed, state), told[::-1]))
        if len(told) < len(children):
            for job_id in children:
                if not broken(links.on_error[job_id], state):
                    links.met(job_id)
