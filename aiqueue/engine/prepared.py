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
from collections.abc import Generator, Iterable, Mapping, Sequence

from aiqueue.engine import batches, soundness
from aiqueue.engine.commands import Submit
from aiqueue.engine.core import Core
from aiqueue.engine.dependencies import ON_ERROR, broken, excess, failure_of
from aiqueue.engine.effects import NOT_ENDED, JobRows
from aiqueue.engine.publishing import Turn
from aiqueue.engine.records import Common, JobRecord, Progress, encode_progress
from aiqueue.engine.states import JobState
from aiqueue.errors import DuplicateBatch, DuplicateJob, ValidationError
from aiqueue.protocol import Failure, JobHeader, Need, Refusal, Submission, SubmitGroup, encode


class Prepared:
    """One group, as far as it is ready. It is refused with its ``fault``, if it has one."""

    def __init__(self, core: Core, group: SubmitGroup) -> None:
        self._core, self.group = core, group
        self._batch_id = group.batch.id if group.batch is not None else ""
        wrong = soundness.fault_in_spec(group.batch) if group.batch is not None else ""
        wrong = wrong or excess(len(job.header.needs) for job in group.jobs)
        self.fault = Refusal(ValidationError.kind, wrong) if wrong else None  #: why it can't be accepted, ever
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
        self.stand: Stand | None = None  #: how those others stand, once that was looked at
        self.keys: set[str] = set()  #: idempotency keys
        self.redrives: list[Submission] = []  #: jobs that repeat dead letters: few, so the step itself checks them
        self._last: tuple[JobHeader, Common, bytes] | None = None  # of a list all jobs have one header

    def in_parts(self, most: int, *, now: float) -> Generator[None, None, None]:
        """Make the jobs ready; yield after each ``most`` jobs and needs."""
        left = most
        for submitted in self.group.jobs:
            if self.fault is not None:
                return
            self.fault = self._add(submitted, now)
            left -= 1 + len(submitted.header.needs)
            if left <= 0:
                yield
                left = most
        if left < most:
            yield

    def _add(self, submitted: Submission, now: float) -> Refusal | None:
        """Make a job ready; return why it can't be accepted, if it can't."""
        header, job_id = submitted.header, submitted.id
        if job_id in self.jobs:
            return Refusal(DuplicateJob.kind, str(DuplicateJob(job_id)), job_id)
        if self._batch_id and header.batch_id != self._batch_id:
            said = f"belongs to batch {header.batch_id!r}, not {self._batch_id!r}"
            return Refusal(ValidationError.kind, said, job_id)
        if header.redriven_from:
            self.redrives.append(submitted)
        if header.needs:
            if not self._batch_id:
                return Refusal(ValidationError.kind, soundness.NEEDS_A_BATCH, job_id)
            if header.on_error not in ON_ERROR:
                said = f"on_error must be one of {', '.join(sorted(ON_ERROR))}"
                return Refusal(ValidationError.kind, said, job_id)
            self._link(job_id, header)
        if self._last is None or self._last[0] is not header:
            levels = self._core.levels
            is_usual = header.level in levels and soundness.is_usual(header)
            if not is_usual and (wrong := soundness.fault_in_header(header, len(levels))):
                return Refusal(ValidationError.kind, wrong, job_id)
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
        return None

    def _link(self, job_id: str, header: JobHeader) -> None:
        self.needs[job_id], self.on_error[job_id] = header.needs, header.on_error
        parents = dict.fromkeys([need.job_id for need in header.needs])  # in order, unlike a set
        for need in header.needs:
            self.needed[need.job_id] = self.needed.get(need.job_id, 0) + 1
        for parent in parents:
            (self.children if parent in self.jobs else self.outside).setdefault(parent, []).append(job_id)
        self.missing[job_id] = len(parents)

    def meet(self, ended: Mapping[str, str], most: int) -> Generator[None, None, None]:
        """Note how the jobs outside ended that have; yield after each ``most`` needs.

        ``ended``: by id, how they ended. The others are taken to be live: the step that accepts the group checks that.
        """
        stand, left = Stand(self), most
        for needed, children in self.outside.items():
            state = ended.get(needed)
            if state is None:
                stand.awaited[needed] = children
            else:
                stand.hear(needed, state, children)
            left -= 1 + len(children)
            if left <= 0:
                yield
                left = most
        self.stand = stand

    def stand_at(self, command: Submit) -> Stand:
        """Return how the jobs outside stand, some of which have ended since that was looked at."""
        if self.stand is None:
            for _ in self.meet(command.ended, len(self.outside)):
                pass
        assert self.stand is not None
        return self.stand

    def ended_since(self) -> list[str]:
        """Return the jobs outside that were taken to be live and are not, or not any more."""
        awaited = self.stand.awaited if self.stand is not None else ()
        return [job_id for job_id in awaited if job_id not in self._core.live]

    def rows(self, first: int) -> JobRows:
        """Return the jobs' rows; ``first``: the seq of the first one."""
        return JobRows(first, self.jobs.keys(), self.headers, self.payloads)

    def is_new(self, command: Submit) -> bool:
        """Return True if none of its jobs is known."""
        ids = self.jobs.keys()  # a view: the smaller one of two is looked through
        return command.journaled.keys().isdisjoint(ids) and self._core.live.keys().isdisjoint(ids)

    def refusal(self, command: Submit) -> Refusal | None:
        """Return why the group can't be accepted any more; None if it can."""
        if not self._batch_id:
            taken = self.batches.keys() & self._core.groups.live.keys()
            return Refusal(DuplicateBatch.kind, min(taken)) if taken else None
        if batches.is_taken(self._core, self._batch_id) or self._batch_id in command.batches:
            return Refusal(DuplicateBatch.kind, self._batch_id)
        stand = self.stand_at(command)
        stand.gone = self.ended_since()
        for needed in stand.gone:
            if needed not in command.ended:
                said = f"needs job {needed}, which is not known"
                return Refusal(ValidationError.kind, said, self.outside[needed][0])
        return None


class Stand:
    """How the jobs stand that a group needs and that are not of it."""

    def __init__(self, ready: Prepared) -> None:
        self._on_error = ready.on_error
        self.missing = dict(ready.missing)  #: by job of the group: how many that have not ended it needs
        self.awaited: dict[str, list[str]] = {}  #: by job outside that has not ended: those that need it
        self.gone: list[str] = []  #: those of them that have ended since
        self.lost: dict[str, Failure] = {}  #: jobs of the group that can't run, and why
        self.rows: dict[str, bytes] = {}  #: what is written of those

    def hear(self, needed: str, ended_as: str, children: Iterable[str]) -> None:
        """A job outside has ended. The first one without which a job can't run decides."""
        state = JobState(ended_as)
        for job_id in children:
            if job_id in self.lost:
                continue
            if broken(self._on_error[job_id], state):
                failure = self.lost[job_id] = failure_of(needed, ended_as)
                self.rows[job_id] = encode_progress(Progress(failure=failure))
                del self.missing[job_id]
            elif self.missing[job_id] > 1:
                self.missing[job_id] -= 1
            else:
                del self.missing[job_id]


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
    stand = ready.stand_at(command)
    for needed in stand.gone:
        stand.hear(needed, command.ended[needed], stand.awaited.pop(needed))
    core.links.add_all(ready.needs, ready.on_error, stand.missing, ready.children, ready.needed)
    core.links.await_all(stand.awaited)
    core.links.lost.update(stand.lost)
    queued = JobState.QUEUED.value
    turn.rows.states += [(ready.jobs[job_id].seq, queued, row, NOT_ENDED) for job_id, row in stand.rows.items()]
    batches.release(core, turn, group, ready.levels)
