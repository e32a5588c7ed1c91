"""From what the engine has granted to what a worker is sent: payloads, and results that a job waited for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiqueue.call_size import MAX_CALL_BYTES, PART_BYTES
from aiqueue.engine.dependencies import not_kept
from aiqueue.engine.effects import Granted
from aiqueue.engine.records import JobRecord
from aiqueue.errors import DependencyFailed, InputsTooLarge, JobError, PayloadLost, PayloadUnreadable
from aiqueue.journal.base import NO_LIMIT, StoredJob
from aiqueue.protocol import ClaimedJob, JobInput, Need, Outcome
from aiqueue.service import lookup
from aiqueue.service.payload_cache import PayloadCache
from aiqueue.service.row_reads import RowReads

Needs = tuple[Sequence[Need], str]  #: what a job waited for, and what a failed one means to it

_log = logging.getLogger(__name__)
_FRAME_BYTES = 65_536  # of an answer with one job, beside payload and results


@dataclass(slots=True)
class Claimed:
    """What became of the jobs that were granted."""

    jobs: list[ClaimedJob] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)  #: of jobs that no worker can be sent
    more: bool = False  #: not all of them are here, and the others are still granted

    def fail(self, job: JobRecord, error: JobError) -> None:
        """Let a job's attempt end here: it must not keep its worker from all others."""
        _log.error("job %s, attempt %d: %s", job.id, job.attempt, error)
        self.failed.append(Outcome(job.id, job.attempt, failure=error.to_failure()))


@dataclass(slots=True)
class _Rows:
    """What was read, and the errors of what could not be."""

    are_all: bool = True
    payloads: dict[int, bytes] = field(default_factory=dict)
    unread: dict[int, Exception] = field(default_factory=dict)
    results: dict[str, StoredJob] = field(default_factory=dict)
    unread_results: dict[str, Exception] = field(default_factory=dict)


class ClaimReader:
    """Reads what jobs need to be run. An error of one row is the error of its job; one of the disk is raised.

    What has no room in one answer is not read: it stays granted, and the worker is told to ask for it at once.
    """

    def __init__(self, payloads: PayloadCache, reads: RowReads) -> None:
        self._payloads, self._reads = payloads, reads
        self.room = PART_BYTES  #: of one answer, and a job that is larger goes alone

    async def read(self, granted: Granted) -> Claimed:
        """Return what the worker is sent, and the ends of jobs that can't be."""
        jobs, bodies = granted.claims, [self._payloads.take(job.seq) for job in granted.claims]
        kept = [body for body in bodies if body is not None]
        room = self.room - sum(map(len, kept))
        if room >= 0 and len(kept) == len(jobs) and not granted.needs:  # most often
            return Claimed(list(map(_claimed_job, jobs, kept)))
        claimed = Claimed()
        rows = await self._rows(jobs, bodies, granted.needs, room)
        if not rows.are_all:
            jobs, bodies = await self._cut(claimed, granted, bodies)
            rows = await self._rows(jobs, bodies, granted.needs, NO_LIMIT)
        for job, body in zip(jobs, bodies, strict=True):
            self._add(claimed, job, body, granted.needs.get(job.id), rows)
        return claimed

    async def _rows(
        self, jobs: Sequence[JobRecord], bodies: Sequence[bytes | None], needs: Mapping[str, Needs], room: int
    ) -> _Rows:
        """Return what is to be read for these jobs, unless that has more bytes than there is room for."""
        missing = [job.seq for job, body in zip(jobs, bodies, strict=True) if body is None]
        needed = list({need.job_id for job in jobs if job.id in needs for need in needs[job.id][0]})
        rows = _Rows()
        if missing and room >= 0:
            rows.payloads, rows.unread = await self._reads.payloads(missing, room)
            room -= sum(map(len, rows.payloads.values()))
        if needed and room >= 0:
            rows.results, rows.unread_results = await self._reads.jobs(needed, limit=room)
            room -= sum(job.weight for job in rows.results.values())
        rows.are_all = room >= 0
        return rows

    async def _cut(
        self, claimed: Claimed, granted: Granted, bodies: Sequence[bytes | None]
    ) -> tuple[list[JobRecord], list[bytes | None]]:
        """Return the jobs that one answer has room for, with the payloads that are in memory."""
        missing = [job.seq for job, body in zip(granted.claims, bodies, strict=True) if body is None]
        needed = {need.job_id for needs, _ in granted.needs.values() for need in needs}
        payloads, results = await self._reads.sizes(missing, list(needed))
        jobs: list[JobRecord] = []
        kept: list[bytes | None] = []
        room = self.room
        for job, body in zip(granted.claims, bodies, strict=True):
            needs, _ = granted.needs.get(job.id, ((), ""))
            size = payloads.get(job.seq, 0) if body is None else len(body)
            size += sum(results.get(need.job_id, 0) for need in needs)
            if size + _FRAME_BYTES > MAX_CALL_BYTES:
                claimed.fail(job, _too_large(size))
            elif size <= room or not jobs:
                jobs.append(job)
                kept.append(body)
                room -= size
            else:
                claimed.more, room = True, 0  # in order: what comes next waits as well
                if body is not None:
                    self._payloads.put(job.seq, body)
        return jobs, kept

    def _add(self, claimed: Claimed, job: JobRecord, body: bytes | None, needs: Needs | None, rows: _Rows) -> None:
        body = rows.payloads.get(job.seq) if body is None else body
        if (error := rows.unread.get(job.seq)) is not None:
            claimed.fail(job, _unreadable(f"the payload of job {job.id}", error))
        elif body is None:
            claimed.fail(job, PayloadLost(f"The journal has no payload of job {job.id}; submit it again"))
        else:
            try:
                inputs = _inputs_of(*needs, rows.results, rows.unread_results) if needs else None
            except (PayloadUnreadable, DependencyFailed) as fault:
                claimed.fail(job, fault)
            else:
                claimed.jobs.append(_claimed_job(job, body, inputs))


def _inputs_of(
    needs: Sequence[Need], on_error: str, stored: Mapping[str, StoredJob], broken: Mapping[str, Exception]
) -> list[JobInput]:
    found: list[JobInput] = []
    for place, need in enumerate(needs):
        if on_error == "fail" and need.job_id not in stored and need.job_id not in broken:
            raise not_kept(need.job_id)
        error = broken.get(need.job_id)
        if error is None:
            try:
                given = lookup.input_of(need, place, on_error, stored.get(need.job_id))
                found += [given] if given is not None else []
            except Exception as undecodable:
                error = undecodable
        if error is not None:
            raise _unreadable(f"the result of job {need.job_id}, which it needs", error) from error
    return found


def _unreadable(what: str, error: Exception) -> PayloadUnreadable:
    return PayloadUnreadable(
        f"The queue can't read {what}, from its journal ({type(error).__name__}: {error}); check the disk of the "
        "journal, and submit the job again if no retry helps"
    )


def _too_large(size: int) -> InputsTooLarge:
    return InputsTooLarge(
        f"The job's payload and the results that it needs have {size} bytes together, and one call to a worker carries "
        f"at most {MAX_CALL_BYTES >> 20} MiB: let the job need fewer results, or smaller ones"
    )


def _claimed_job(job: JobRecord, body: bytes, inputs: list[JobInput] | None = None) -> ClaimedJob:
    lane = job.lane
    return ClaimedJob(job.id, job.attempt, job.type, lane.provider, lane.model, job.timeout_ms, body, inputs, job.level)
