"""What the engine remembers of a job that has not ended: slotted, mutable, internal.

A million of these must fit in memory, so a record holds what decisions need and nothing else: tags, metadata and
payload stay in the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from aiqueue.engine.states import JobState
from aiqueue.protocol import Failure, JobHeader, Wire

StoredRow = tuple[int, str, bytes, str, bytes]  #: of a live job: seq, id, header, state, Progress


class LaneKey(msgspec.Struct, frozen=True, cache_hash=True):
    """Jobs with one key share a lane: they are served by the same pool and limited together."""

    pool: str
    provider: str
    model: str
    credential: str
    company: int = 0  #: suspects: most jobs that may run on one worker together, themselves included; 0: any number


class Common(NamedTuple):
    """What all jobs submitted under one header have in common: the fields of their records from ``lane`` on."""

    lane: LaneKey
    type: str
    level: int
    owner: str
    batch_id: str
    max_retries: int
    timeout_ms: int
    created_at: float
    since: float
    run_at: float


class JobRecord(msgspec.Struct, gc=False):
    """A live job. ``seq`` is its place in the order of acceptance, and its key in the journal."""

    seq: int
    id: str
    lane: LaneKey
    type: str
    level: int
    owner: str
    batch_id: str
    max_retries: int
    timeout_ms: int
    created_at: float
    since: float  #: its SLA's clock starts: on acceptance, or when the time came that it was to wait for
    run_at: float  #: scheduled: not before
    state: JobState = JobState.QUEUED
    attempt: int = 0  #: claims so far; 0 until a worker first takes the job
    retries: int = 0  #: attempts that failed and were followed by another one, as far as ``max_retries`` allows
    crashes: int = 0  #: attempts whose worker was lost
    worker_id: str = ""  #: holder of the lease, or of the last one
    started_at: float = 0.0  #: of the current attempt
    blamed: int = 0  #: of the crashes, those that nothing but this job can have caused


class Listed(NamedTuple):
    """Jobs that were accepted in one step, and become ready some at a time."""

    jobs: Iterator[JobRecord]  #: in the order in which they would be claimed, ended ones among them
    timed: dict[str, JobHeader]  #: by id: of those with a date, an expiry or ``fail_fast``


class Progress(Wire):
    """The part of a job's journal row that changes."""

    attempt: int = 0
    retries: int = 0
    crashes: int = 0
    worker_id: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    run_at: float = 0.0
    failure: Failure | None = None
    refusals: int = 0
    blamed: int = 0
    company: int = 0  #: of the lane's key
    successor: str = ""  #: of a job that ended: the job that was put in its place, or "-": it was deleted


def failure_to_come(state: str, progress: Progress) -> Failure | None:
    """Return why a job is to fail in its turn, as its row says; None for nearly all: it may run."""
    return progress.failure if state == JobState.QUEUED and not progress.attempt else None


class AttemptRecord(Wire):
    """An attempt that was not the job's last one. The last one is in the job's own row."""

    attempt: int
    outcome: str  #: failed, refused (asked to wait), lost, handed_back
    started_at: float
    ended_at: float
    worker_id: str
    failure: Failure | None = None


encode_attempt = msgspec.msgpack.Encoder().encode
decode_attempt = msgspec.msgpack.Decoder(AttemptRecord).decode
encode_progress = msgspec.msgpack.Encoder().encode
decode_progress = msgspec.msgpack.Decoder(Progress).decode
