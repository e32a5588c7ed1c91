"""From what the engine has granted to what a worker is sent: payloads, and results that a job waited for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiqueue.engine.dependencies import not_kept
from aiqueue.engine.effects import Granted
from aiqueue.engine.records import JobRecord
from aiqueue.errors import DependencyFailed, JobError, PayloadLost, PayloadUnreadable
from aiqueue.journal.base import StoredJob
from aiqueue.protocol import ClaimedJob, JobInput, Need, Outcome
from aiqueue.service import lookup
from aiqueue.service.payload_cache import PayloadCache
from aiqueue.service.row_reads import RowReads

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Claimed:
    """What became of the jobs that were granted."""

    jobs: list[ClaimedJob] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)  #: of jobs that no worker can be sent

    def fail(self, job: JobRecord, error: JobError) -> None:
        """Let a job's attempt end here: it must not keep its worker from all others."""
        _log.error("job %s, attempt %d: %s", job.id, job.attempt, error)
        self.failed.append(Outcome(job.id, job.attempt, failure=error.to_failure()))


class ClaimReader:
    """Reads what jobs need to be run. An error of one row is the error of its job; one of the disk is raised."""

    def __init__(self, payloads: PayloadCache, reads: RowReads) -> None:
        self._payloads, self._reads = payloads, reads

    async def read(self, granted: Granted) -> Claimed:
        """Return what the worker is sent, and the ends of jobs that can't be."""
        claimed = Claimed()
        bodies = [self._payloads.take(job.seq) for job in granted.claims]
        missing = [job.seq for job, body in zip(granted.claims, bodies, strict=True) if body is None]
        if not missing and not granted.needs:  # most often
            claimed.jobs = [
                _claimed_job(job, body) for job, body in zip(granted.claims, bodies, strict=True) if body is not None
            ]
            return claimed
        found, broken = await self._reads.payloads(missing) if missing else ({}, {})
        inputs, faults = await self._inputs(granted.needs) if granted.needs else ({}, {})
        for job, kept in zip(granted.claims, bodies, strict=True):
            body = found.get(job.seq) if kept is None else kept
            if error := broken.get(job.seq):
                claimed.fail(job, _unreadable(f"the payload of job {job.id}", error))
            elif body is None:
                claimed.fail(job, PayloadLost(f"The journal has no payload of job {job.id}; submit it again"))
            elif fault := faults.get(job.id):
                claimed.fail(job, fault)
            else:
                claimed.jobs.append(_claimed_job(job, body, inputs.get(job.id)))
        return claimed

    async def _inputs(
        self, needs: Mapping[str, tuple[Sequence[Need], str]]
    ) -> tuple[dict[str, list[JobInput]], dict[str, JobError]]:
        """Return by job what it waited for, and the errors of jobs for which that can't be read."""
        stored, broken = await self._reads.jobs(list({need.job_id for needed, _ in needs.values() for need in needed}))
        inputs: dict[str, list[JobInput]] = {}
        faults: dict[str, JobError] = {}
        for job_id, (needed, on_error) in needs.items():
            try:
                inputs[job_id] = _inputs_of(needed, on_error, stored, broken)
            except (PayloadUnreadable, DependencyFailed) as error:
                faults[job_id] = error
        return inputs, faults


def _inputs_of(
    needs: Sequence[Need], on_error: str, stored: Mapping[str, StoredJob], broken: Mapping[str, Exception]
) -> list[JobInput]:
    found: list[JobInput] = []
    for need in needs:
        if on_error == "fail" and need.job_id not in stored and need.job_id not in broken:
            raise not_kept(need.job_id)
        try:
            if need.job_id in broken:
                raise broken[need.job_id]
            found += lookup.inputs_of([need], on_error, stored)
        except Exception as error:
            raise _unreadable(f"the result of job {need.job_id}, which it needs", error) from error
    return found


def _unreadable(what: str, error: Exception) -> PayloadUnreadable:
    return PayloadUnreadable(
        f"The queue can't read {what}, from its journal ({type(error).__name__}: {error}); check the disk of the "
        "journal, and submit the job again if no retry helps"
    )


def _claimed_job(job: JobRecord, body: bytes, inputs: list[JobInput] | None = None) -> ClaimedJob:
    lane = job.lane
    return ClaimedJob(job.id, job.attempt, job.type, lane.provider, lane.model, job.timeout_ms, body, inputs, job.level)
