"""Batches of jobs, chains and graphs: accepted part by part or at once, sealed, stopped, paused, retried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from aiqueue.engine import drops, soundness, successors
from aiqueue.engine.batch_ends import end_phase
from aiqueue.engine.batch_records import StoredBatch, encode_batch
from aiqueue.engine.cancellation import fail_where_closed, stop_job
from aiqueue.engine.commands import Retry, Steer, Submit
from aiqueue.engine.core import Core
from aiqueue.engine.dependencies import ON_ERROR, Ended, broken, excess, failure_of, lost_need, unknown
from aiqueue.engine.group import Group
from aiqueue.engine.publishing import BATCH_ENDED, BATCH_SUBMITTED, SUBMITTED, Turn
from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.errors import BatchNotFound, DuplicateBatch, ValidationError
from aiqueue.protocol import BatchSpec, JobHeader, Refusal, Submission, SubmitGroup, encode

OPEN_S = 600.0  #: an open batch to which nothing is added for this long is dropped
_CHEAP = 4  # as many jobs become ready in the time in which one is cancelled
RETRIED = -1  #: first index of a part that holds successors of failed jobs: each header has its job's own index


def refusal_of(core: Core, group: SubmitGroup, fresh: Mapping[str, Submission], command: Submit) -> Refusal | None:
    """Return why these jobs can't be (a part of) a batch."""
    batch_id = group.batch.id if group.batch else group.part_of
    if group.part_of:
        found = core.groups.live.get(batch_id)
        if found is None or not found.is_open:
            return Refusal(BatchNotFound.kind, batch_id)
    elif fresh and (is_taken(core, batch_id) or batch_id in command.batches):
        return Refusal(DuplicateBatch.kind, batch_id)
    if fresh and group.batch is not None and (fault := soundness.fault_in_spec(group.batch)):
        return Refusal(ValidationError.kind, fault)
    if over := excess([len(needs) for job in fresh.values() if (needs := job.header.needs)]):
        return Refusal(ValidationError.kind, over)
    known = set(command.ended)
    for job in fresh.values():
        header = job.header
        if header.batch_id != batch_id:
            return Refusal(ValidationError.kind, f"belongs to batch {header.batch_id!r}, not {batch_id!r}", job.id)
        if header.needs:
            if header.on_error not in ON_ERROR:
                return Refusal(ValidationError.kind, f"on_error must be one of {', '.join(sorted(ON_ERROR))}", job.id)
            if missing := unknown(header.needs, known, core.live):
                return Refusal(ValidationError.kind, f"needs job {missing}, which is not known", job.id)
        known.add(job.id)
    return None


def is_taken(core: Core, batch_id: str) -> bool:
    """Return True if a batch that has not ended, or a job that says it is of one, has this id."""
    return batch_id in core.groups.live or batch_id in core.open_batches


def accept(core: Core, turn: Turn, sent: SubmitGroup, fresh: Collection[Submission], ended: Mapping[str, str]) -> None:
    """Take jobs that nothing speaks against."""
    if sent.batch is not None:
        if not fresh:  # sent again: accepted long ago
            return
        group = open_batch(core, turn, sent.batch)
    else:
        group = core.groups.live[sent.part_of]
        group.touched_at = turn.now
    _add(core, turn, group, fresh, ended)
    if sent.batch is not None and not sent.batch.is_open:
        _publish(core, turn, group, BATCH_SUBMITTED)


def keep_metadata(core: Core, turn: Turn, jobs: Collection[Submission], metadata: bytes) -> None:
    """Keep what jobs share, which are accepted next, in one row for all of them; of a single job in its own."""
    if len(jobs) == 1:
        next(iter(jobs)).header.metadata = metadata
    elif jobs and metadata:
        share_metadata(core, turn, len(jobs), metadata)


def share_metadata(core: Core, turn: Turn, count: int, metadata: bytes) -> None:
    """Keep the metadata of the next ``count`` jobs in one row: their headers may be encoded by now."""
    first = core.counters.next_seq
    turn.rows.shared.append((first, first + count - 1, metadata))


def open_batch(core: Core, turn: Turn, spec: BatchSpec) -> Group:
    """Make a new batch known."""
    no = core.counters.next_batch
    core.counters.next_batch += 1
    core.counters.batches += 1
    phase = "open" if spec.is_open else "running"
    turn.rows.batches.append((no, spec.id, encode(spec)))
    return core.groups.add(no, spec, StoredBatch(phase=phase, created_at=turn.now), now=turn.now)


def _add(
    core: Core,
    turn: Turn,
    group: Group,
    jobs: Collection[Submission],
    ended: Mapping[str, str],
    *,
    first_index: int | None = None,
) -> None:
    """Put jobs into a batch. They get seqs without gaps, so one row says where they are."""
    if jobs:
        index = next(iter(jobs)).header.index if first_index is None else first_index
        first_seq = core.counters.next_seq
        turn.rows.parts.append((group.no, first_seq, len(jobs), index))
        group.stored.total += len(jobs)
        if group.is_open:
            group.parts.append(range(first_seq, first_seq + len(jobs)))
    known = dict(ended)
    for submitted in jobs:
        job = _enqueue(core, turn, group, submitted, known)
        if job.state in TERMINAL:  # at once, as at a closed gate: those that need it come after it
            known[job.id] = job.state.value
    core.groups.dirty[group.spec.id] = group


def _enqueue(core: Core, turn: Turn, group: Group, submitted: Submission, ended: Mapping[str, str]) -> JobRecord:
    header = submitted.header
    job = core.record(core.counters.take_seq(), submitted.id, header)
    core.counters.accepted += 1
    turn.rows.jobs.append((job.seq, job.id, encode(header), submitted.payload))
    core.admit(job, JobState.BLOCKED, now=turn.now)
    if group.stored.phase != "open":
        core.publish(turn, job, SUBMITTED)  # those of an open batch are announced as one, when it is sealed
    lost = _link(core, job, header, ended)
    if lost:
        core.move(turn, job, JobState.FAILED, failure=failure_of(lost, ended.get(lost)))
    elif group.stored.phase != "open" and not core.links.waits(job.id):
        _release(core, turn, job)
    return job


def _link(core: Core, job: JobRecord, header: JobHeader, ended: Mapping[str, str]) -> str:
    """Note what the job waits for; return the job without which it can't run, if there is one."""
    if not header.needs:
        return ""
    core.links.add(job.id, header.needs, header.on_error, core.live)
    return lost_need(header.needs, header.on_error, ended, core.live)


def steer(core: Core, turn: Turn, command: Steer) -> Refusal | None:
    """Carry out a Steer."""
    group = core.groups.live.get(command.batch_id)
    if group is None or group.stored.dropped:
        return Refusal(BatchNotFound.kind, command.batch_id)
    stored = group.stored
    match command.action:
        case "seal" if group.is_open:
            if stored.total != command.count:
                said = f"holds {stored.total} jobs, but {command.count} were counted; submit it again"
                return Refusal(ValidationError.kind, said)
            _seal(core, turn, group)
        case "touch":
            group.touched_at = turn.now
            return None
        case "drop" if group.is_open:
            drops.begin(core, group)
            advance(core, turn)
            return None
        case "cancel" if stored.phase != "stopping":
            stop(core, turn, group, "")
        case "pause" | "resume":
            stored.paused = command.action == "pause"
            core.groups.refill(group)
    core.groups.dirty[group.spec.id] = group
    return None


def _seal(core: Core, turn: Turn, group: Group) -> None:
    """Let a batch run: its jobs become ready some at a time, in the order in which they would be claimed."""
    group.stored.phase = "running"
    group.parts.clear()
    core.groups.opened.pop(group.spec.id, None)
    release(core, turn, group)
    if not group.live:  # all of them were cancelled or have expired meanwhile
        core.groups.finished.append(group)


def release(core: Core, turn: Turn, group: Group, levels: Iterable[int] = ()) -> None:
    """Announce a batch, and let those of its jobs run that wait for no other one: some in this turn."""
    core.groups.sealing[group.spec.id] = group.by_level(levels)
    _release_sealed(core, turn)
    core.groups.dirty[group.spec.id] = group
    _publish(core, turn, group, BATCH_SUBMITTED)


def _release_sealed(core: Core, turn: Turn) -> None:
    """Let some more jobs of the batches run that were sealed. After a restart all of them are found to be free."""
    blocked, left = JobState.BLOCKED, _CHEAP * core.policy.most_at_once
    for batch_id, members in list(core.groups.sealing.items()):
        part = list(islice(members, left))
        if len(part) < left:
            del core.groups.sealing[batch_id]
        left -= len(part)
        ready = [job for job in part if job.state is blocked and not core.links.waits(job.id)]
        at_once = [job for job in ready if not core.is_early(job, turn.now) and job.id not in core.fail_fast]
        core.unblock_all(core.groups.live[batch_id], at_once)
        for job in ready:
            if job.state is blocked:  # it has a time of its own, or would rather fail than wait
                _release(core, turn, job)
        if left <= 0:
            return


def _release(core: Core, turn: Turn, job: JobRecord) -> None:
    """Let a blocked job run, unless its gate is closed and it is not to wait there."""
    core.unblock(turn, job)
    if job.id in core.fail_fast:
        fail_where_closed(core, turn, job)


def stop(core: Core, turn: Turn, group: Group, reason: str) -> None:
    """Begin to cancel what has not ended. ``reason`` is empty where the owner asked for it."""
    group.stored.phase, group.stored.reason = "stopping", reason
    group.doom()
    core.groups.sealing.pop(group.spec.id, None)
    core.groups.opened.pop(group.spec.id, None)
    core.groups.stopping[group.spec.id] = group
    core.groups.dirty[group.spec.id] = group
    advance(core, turn)


def advance(core: Core, turn: Turn) -> None:
    """Cancel some more jobs of the batches that are being stopped, and forget some of those that are being dropped."""
    for group in list(core.groups.stopping.values()):
        if group.stored.dropped:
            if not drops.forget_some(core, turn, group):
                return
            continue
        if group.doomed is None:  # begun before a restart
            group.doom()
        if not group.live:
            core.groups.finished.append(group)
        while group.doomed and turn.left > 0:
            job = group.doomed.pop()
            if job.state not in TERMINAL:
                turn.left -= 1 + core.links.work_to_drop(job.id)
                stop_job(core, turn, job.id)
        if group.doomed:
            return
        core.groups.stopping.pop(group.spec.id, None)


def tick(core: Core, turn: Turn) -> None:
    """Go on with what was begun, and drop open batches whose submitter has gone silent."""
    for group in list(core.groups.opened.values()):
        if group.touched_at + OPEN_S <= turn.now:
            drops.begin(core, group)
    advance(core, turn)
    if core.groups.sealing:
        _release_sealed(core, turn)


def settle(core: Core, turn: Turn) -> None:
    """Let ends have their consequences for jobs that waited, and for batches; for so many jobs in one turn.

    The jobs that the last one freed come first: so few ends are under way at any time, however wide a graph is.
    """
    freed = core.links.freed
    while core.groups.tripped or ((freed or core.links.lost) and turn.left > 0):
        while core.groups.tripped:
            group, why = core.groups.tripped.pop()
            if group.stored.phase == "running":
                stop(core, turn, group, why)
        if freed and turn.left > 0:
            parent, children = freed[-1]
            child = children.pop()
            if not children:
                freed.pop()
            turn.left -= 1
            _parent_ended(core, turn, parent, child)
        elif not freed and core.links.lost and turn.left > 0:
            _end_lost(core, turn)


def _end_lost(core: Core, turn: Turn) -> None:
    """End one of the jobs that can't run since one that it needed had failed before it was accepted."""
    job_id, failure = core.links.lost.popitem()
    turn.left -= 1 + core.links.work_to_drop(job_id)
    core.move(turn, core.live[job_id], JobState.FAILED, failure=failure)


def _parent_ended(core: Core, turn: Turn, parent: Ended, child: str) -> None:
    job = core.live.get(child)
    if job is None or job.state is not JobState.BLOCKED:
        return
    group = core.groups.live.get(job.batch_id)
    if group is not None and group.stored.dropped:
        return
    if broken(core.links.on_error[child], parent.state):
        turn.left -= core.links.work_to_drop(child)
        core.move(turn, job, JobState.FAILED, failure=failure_of(parent.id, parent.state.value))
    elif core.links.met(child) and (group is None or group.stored.phase != "open"):
        _release(core, turn, job)


def retry(core: Core, turn: Turn, command: Retry) -> Refusal | None:
    """Carry out a Retry, unless the batch is being stopped or some of these jobs have a successor."""
    group = core.groups.live.get(command.spec.id)
    stored = group.stored if group else command.stored
    states = Counter(state for _, state, _ in command.replaced)
    if stored.phase in ("open", "stopping"):
        return Refusal(ValidationError.kind, f"is {stored.phase}: try again later")
    seqs = {seq for seq, _, _ in command.replaced}
    if (
        any(stored.ended.get(state, 0) < count for state, count in states.items())
        or (group and seqs & group.replaced)
        or any(successors.has_successor(progress) for _, _, progress in command.replaced)
    ):
        return Refusal(ValidationError.kind, "was retried just now")
    if group is None:
        group = core.groups.add(command.number, command.spec, stored, now=turn.now)
    stored.phase, stored.ended_at, stored.reason = "running", 0.0, ""
    for state, count in states.items():
        stored.ended[state] -= count
    stored.errors, stored.first_errors = {}, []
    stored.total -= len(command.jobs)  # they take the places of others
    group.replaced |= seqs
    turn.rows.states += successors.retried(turn, command.replaced, command.jobs)
    if command.metadata:
        keep_metadata(core, turn, command.jobs, command.metadata)
    _add(core, turn, group, command.jobs, command.ended, first_index=RETRIED)
    return None


def write(core: Core, turn: Turn) -> None:
    """Write the batches that changed, and announce those that have ended."""
    for group in core.groups.finished:
        if group.live == 0 and group.spec.id in core.groups.live:
            group.stored.phase, group.stored.ended_at = end_phase(group), turn.now
            core.groups.remove(group)
            core.groups.dirty[group.spec.id] = group
            _publish(core, turn, group, BATCH_ENDED)
    core.groups.finished.clear()
    for group in core.groups.dirty.values():
        turn.rows.batch_states.append((group.no, encode_batch(group.stored), group.stored.ended_at))
    core.groups.dirty.clear()


def _publish(core: Core, turn: Turn, group: Group, name: str) -> None:
    core.publish_batch(turn, name, group.spec.id, group.stored.phase)
