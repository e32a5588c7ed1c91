"""Commands, one at a time, from the engine to the journal. What goes wrong on the way ends the process: ``faults``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from aiqueue.engine import TERMINAL, Announce, Cancel, Exchange, LoseWorker, QueueEngine, Report, Submit
from aiqueue.engine.commands import AddSchedule, ChangeSchedule, Claim, Command, Retry, RunSchedule, Steer
from aiqueue.engine.effects import Granted
from aiqueue.errors import QueueFault, QueueUnavailable
from aiqueue.protocol import CancelReply, Failure, Outcome, Refusal, SubmitGroup
from aiqueue.service.clock import Clock
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.digests import digest_of_schedule, key_of
from aiqueue.service.faults import FaultBook, hash_of
from aiqueue.service.payload_cache import PayloadCache

Done = tuple[Any, Committed]
_KEPT = 10_000  # payloads of a large group; those of its other jobs are read when these are claimed


class Steps:
    """Carries out commands. A step awaits nothing, so no other call sees half of one."""

    def __init__(
        self, engine: QueueEngine, commits: CommitPipeline, payloads: PayloadCache, clock: Clock, faults: FaultBook
    ) -> None:
        self._engine, self._commits, self._payloads = engine, commits, payloads
        self._clock, self._faults = clock, faults

    def step(self, command: Command) -> Done:
        """Return the engine's reply, and the commit that makes it true.

        Raises QueueUnavailable where the engine raised, and QueueFault for a call that ended the process before.
        """
        if self._faults.is_empty():
            return self._step(command)
        match command:
            case Submit():
                return self._submit_carefully(command)
            case Exchange():
                return self._exchange_carefully(command)
            case Report():
                return self._report_carefully(command), self._commits.settled()
            case Claim():
                return self._claim_carefully(command)
            case Cancel():
                return self._cancel_carefully(command)
        if any(map(self._faults.is_guilty, self._calls(command))):
            raise QueueFault(f"this call ({type(command).__name__})")
        return self._step(command)

    def _step(self, command: Command, *, alone: bool | None = None) -> Done:
        try:
            effects = self._engine.handle(command, now=self._clock.now())
            for seq, _, _, payload in effects.rows.jobs:
                self._payloads.put(seq, payload)
            for listed in effects.rows.lists:
                for seq, _, _, payload in islice(listed.rows(), _KEPT):
                    self._payloads.put(seq, payload)
            self._payloads.drop(seq for seq, state, _, _ in effects.rows.states if state in TERMINAL)  # ended unclaimed
            self._payloads.drop(effects.rows.deletes)
            return effects.reply, self._commits.append(effects)
        except Exception as error:
            calls = self._calls(command)
            is_alone = _is_alone(command) if alone is None else alone
            self._faults.trip(type(command).__name__, error, calls, alone=is_alone, job=_job_of(command))
            raise QueueUnavailable("the queue met a fault, and starts again from its journal") from error

    def _submit_carefully(self, command: Submit) -> Done:
        """Refuse the groups that ended the process, carry those out alone that may have, and the others together."""
        replies: list[Refusal | None] = []
        together: list[SubmitGroup] = []

        def carry_out(groups: list[SubmitGroup]) -> None:
            if groups:
                replies.extend(self._step(replace(command, groups=groups))[0])

        for group in command.groups:
            call = _hash_of_group(group, command)
            if not self._faults.is_suspect(call):
                together.append(group)
                continue
            carry_out(together)
            together = []
            if self._faults.is_guilty(call):
                replies.append(Refusal(QueueFault.kind, "this submit", group.jobs[0].id))
            else:
                carry_out([group])
        carry_out(together)
        return replies, self._commits.settled()

    def _exchange_carefully(self, command: Exchange) -> Done:
        """Carry out each part of an exchange in a step of its own, and leave out the parts that are put off.

        Reporting comes first and needs no other part. It extends the worker's leases: without it the worker's jobs
        would be given to others and run twice.
        """
        worker = command.worker_id
        overtaken = self._engine.has_overtaken(worker, command.number)
        told = [self._report_carefully(Report(worker, command.outcomes, command.draw))]
        is_heard = not overtaken and not self._faults.put_off_s(hash_of("exchange", worker))
        if is_heard:
            told.append(self._step(replace(command, outcomes=(), running=None, claims=False))[0])
        if command.running is not None and not overtaken:
            told.append(self._report_carefully(Report(worker, running=command.running)))
        if is_heard:
            told.append(self._claim_carefully(Claim(worker, command.slots))[0])
        return _together(told), self._commits.settled()

    def _report_carefully(self, command: Report) -> Granted:
        """Take each suspect outcome in a step of its own. One that ended the process is taken as a failure of its job.

        An outcome that ended the process as a failure too is put off. The others are taken, then QueueUnavailable
        makes the worker report it again.
        """
        suspects = [outcome for outcome in command.outcomes if self._faults.is_suspect(_hash_of_outcome(outcome))]
        rest = [outcome for outcome in command.outcomes if outcome not in suspects]
        granted = Granted()
        if rest or not self._faults.put_off_s(_hash_of_report(command)):
            granted = self._step(replace(command, outcomes=rest), alone=not rest)[0]
        put_off = ""
        for outcome in suspects:
            call = _hash_of_outcome(outcome)
            if self._engine.knows(outcome.job_id) and self._faults.put_off_s(call, beyond=1):
                put_off = outcome.job_id
                continue
            if self._faults.is_guilty(call):
                outcome = Outcome(outcome.job_id, outcome.attempt, failure=_FAULT)
            self._step(Report(command.worker_id, [outcome], command.draw), alone=True)
        if put_off:
            raise QueueUnavailable(
                f"the outcome of job {put_off} ended the queue's process: it is put off, report it again"
            )
        return granted

    def _claim_carefully(self, command: Claim) -> Done:
        """Give nothing to a worker at whose claims the process ended, or to a pool where it was several workers'."""
        own, pool = self._calls(command)
        if self._faults.put_off_s(own) or self._faults.put_off_s(pool, callers=2):
            return Granted(), self._commits.settled()
        return self._step(command)

    def _cancel_carefully(self, command: Cancel) -> Done:
        replies: list[CancelReply] = []
        for job_id in command.job_ids:
            if self._faults.is_guilty(hash_of("cancel", job_id)):
                raise QueueFault(f"to cancel job {job_id}")
            replies += self._step(Cancel([job_id]))[0]
        return replies, self._commits.settled()

    def _calls(self, command: Command) -> list[str]:
        """Return what the calls of a command are known by when they are made again."""
        match command:
            case Exchange() if command.claims:
                return [*_hashes(command), *_hashes_of_claims(command.worker_id, command.pool)]
            case Exchange() if not command.outcomes:
                return [hash_of("exchange", command.worker_id)]
            case Report() if not command.outcomes:
                return [_hash_of_report(command)]
            case Claim():
                worker = self._engine.core.leases.find(command.worker_id)
                return _hashes_of_claims(command.worker_id, worker.pool if worker else "")
        return _hashes(command)


def _is_alone(command: Command) -> bool:
    """Return True if nothing but one call can be at fault."""
    match command:
        case Exchange():
            return not command.outcomes and command.running is None
        case Claim():
            return True
    return len(_hashes(command)) == 1


def _together(told: Sequence[Granted]) -> Granted:
    """Return what a worker is told after several steps."""
    found = Granted()
    for granted in told:
        found.claims += granted.claims
        found.cancels += [attempt for attempt in granted.cancels if attempt not in found.cancels]
        found.needs |= granted.needs
    return found


def _hashes_of_claims(worker_id: str, pool: str) -> list[str]:
    return [hash_of("claim", worker_id), hash_of("claims", pool)]


_FAULT = Failure("worker_fault", "The queue could not take this job's outcome: a bug, its log says where")


def _hashes(command: Command) -> list[str]:
    match command:
        case Submit():
            return [_hash_of_group(group, command) for group in command.groups if group.jobs]
        case Exchange() | Report():
            return [_hash_of_outcome(outcome) for outcome in command.outcomes]
        case Cancel():
            return [hash_of("cancel", job_id) for job_id in command.job_ids]
        case LoseWorker():
            return [hash_of("lose", command.worker_id)]
        case Steer():
            return [hash_of(command.action, command.batch_id, command.count)]
        case Retry():
            return [hash_of("retry", command.spec.id)]
        case AddSchedule():
            return [hash_of("add", digest_of_schedule(command.spec).hex())]  # each try has another id
        case ChangeSchedule():
            return [hash_of(command.action, command.schedule)]
        case RunSchedule():
            return [hash_of("run", command.schedule, command.job_id)]
        case Announce():
            return [hash_of("announce", command.name, command.data.hex())]
    return []


def _hash_of_group(group: SubmitGroup, command: Submit) -> str:
    """Return what a group is known by: its key and what is asked for under it, else its ids.

    A client that makes a request again with its key, after an error, has new ids for it.
    """
    if not group.jobs:
        return ""
    if key := key_of(group):
        return hash_of("submit", key, command.digests.get(group.jobs[0].id, b"").hex())
    return hash_of("submit", *(job.id for job in group.jobs))


def _job_of(command: Command) -> str:
    """Return the job to blame where the engine fails at this command with no job in hand; empty if none is known."""
    return command.outcomes[0].job_id if isinstance(command, Report) and len(command.outcomes) == 1 else ""


def _hash_of_report(command: Report) -> str:
    """Return what a report without outcomes is known by."""
    return hash_of("account" if command.running is not None else "report", command.worker_id)


def _hash_of_outcome(outcome: Outcome) -> str:
    return hash_of("outcome", outcome.job_id, outcome.attempt)
