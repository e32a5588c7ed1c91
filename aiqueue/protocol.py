"""What clients, the queue and workers say to each other: msgpack, described by slotted structs.

One actor call carries many of these, so they are arrays on the wire and cost the receiver about 0.3 µs each. Fields
are only ever appended, with defaults: an older row or peer then still reads. No pickled object is among them.

Payloads and results are opaque bytes (JSON) to everyone but the client and the worker. Times are seconds since the
epoch by the queue's clock unless a name ends in ``_ms``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from aiqueue.journal_info import JournalInfo
from aiqueue.versions import Version


class Wire(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages. ``gc=False``: they hold no cycles, and a million of them must not slow the collector."""


class Failure(Wire):
    """An error as it travels and is journaled; ``aiqueue.errors.error_from`` makes the exception of it."""

    kind: str
    message: str
    retryable: bool = False
    status: int | None = None
    retry_after_s: float | None = None
    request_id: str | None = None


# --- client -> queue: submit ------------------------------------------------------------------------------------------


class Need(Wire):
    """A job that another one waits for, and the names its result has there: ``previous``, ``steps.draft`` …"""

    job_id: str
    names: tuple[str, ...] = ()


class JobHeader(Wire):
    """What the queue knows of a job; also the journal's row. ``created_at`` is set by the queue on acceptance."""

    type: str
    provider: str
    model: str
    level: int  #: rank of the priority level, 0 = urgent
    owner: str  #: id of the client process that submitted it
    max_retries: int = 3
    timeout_ms: int = 30_000
    tags: tuple[str, ...] = ()
    metadata: bytes = b""  #: JSON object, or empty: there is none, or it is kept once for all jobs of a group
    batch_id: str = ""
    created_at: float = 0.0
    run_at: float = 0.0  #: not before, by the machine's clock; 0: at once
    delay_ms: int = 0  #: not before this long after acceptance
    expires_at: float = 0.0  #: to be started by then, by the machine's clock; 0: whenever
    expires_in_ms: int = 0  #: to be started within this long after acceptance; 0: whenever
    fail_fast: bool = False  #: fail when the gate is closed, instead of waiting
    redriven_from: str = ""  #: the dead letter that this job repeats
    idempotency_key: str = ""  #: with its scope in front; empty: none
    index: int = 0  #: place among the jobs of its batch
    needs: tuple[Need, ...] = ()  #: jobs that must end first
    on_error: str = ""  #: what becomes of it when one of those does not complete: fail, skip or include


def sla_starts_at(header: JobHeader) -> float:
    """Return when the clock of the job's SLA starts: on acceptance, or when the time comes that it is to wait for."""
    return max(header.created_at + header.delay_ms / 1e3, header.run_at)


class Submission(Wire):
    """One job to accept."""

    id: str
    header: JobHeader
    payload: bytes


class BatchSpec(Wire):
    """What is decided of a batch when it is submitted. Chains and graphs are batches whose jobs wait for each other."""

    id: str
    kind: str = "batch"  #: batch, chain, graph, fan_in
    name: str = ""
    is_open: bool = False  #: more parts follow, and nothing runs before it is sealed
    max_concurrency: int = 0  #: 0: no limit
    fail_fast: bool = False  #: the first job that fails stops the others
    max_failed_ratio: float = 1.0  #: so does a greater share of failed ones
    tags: tuple[str, ...] = ()
    metadata: bytes = b""  #: JSON object, or empty
    names: tuple[str, ...] = ()  #: of its jobs, in their order; empty: they have none
    run: str = ""  #: of ``map``: its open batches are dropped when it begins again


class SubmitGroup(Wire):
    """Jobs that are accepted together or not at all (one caller's)."""

    jobs: list[Submission]
    maybe_known: bool = False  #: sent before, or with ids chosen by the caller: look them up before accepting
    batch: BatchSpec | None = None  #: these jobs are a batch, or its first part
    part_of: str = ""  #: the open batch that they are a further part of
    metadata: bytes = b""  #: JSON object that all of these jobs have, or empty


class Refusal(Wire):
    """Why a group was not accepted: an error kind, and the id of the job that caused it."""

    kind: str
    message: str
    job_id: str = ""
    retry_after_s: float = 0.0


# --- worker <-> queue: exchange ---------------------------------------------------------------------------------------


class Outcome(Wire):
    """How an attempt ended. ``(job_id, attempt)`` is the fencing token: a stale one is refused."""

    job_id: str
    attempt: int
    result: bytes = b""  #: JSON of a JobResult; also what was produced before a cancel
    failure: Failure | None = None  #: None: completed
    cancelled: bool = False
    tokens: int = 0  #: used, as the provider counted


class ExchangeCall(Wire):
    """A worker's long poll: finished work up, claims down."""

    worker_id: str
    pool: str
    slots: int  #: how many jobs it may hold at once; 0 when it drains
    outcomes: list[Outcome] = []
    running: list[tuple[str, int]] | None = None  #: now and then, and after a failed call: all it holds, to agree on it
    urgent_slots: int = 0  #: of the slots, kept for urgent jobs
    most: int = 0  #: jobs that one answer may bring, its next call brings the rest; 0: as many as slots are free
    number: int = 0  #: of this worker's calls, growing: one that was overtaken is given nothing; 0: not numbered
    protocol: int = 0  #: that the worker speaks


class JobInput(Wire):
    """What another job came to, as the job that waited for it is given it."""

    names: tuple[str, ...]
    status: str
    result: bytes = b""
    failure: Failure | None = None
    place: int = -1  #: among all that the job waited for, those that were skipped too; -1: from a queue that says none


class ClaimedJob(Wire):
    """A job handed to a worker under a lease."""

    job_id: str
    attempt: int
    type: str
    provider: str
    model: str
    timeout_ms: int
    payload: bytes
    inputs: list[JobInput] | None = None  #: results it waited for, to be filled into its payload
    level: int = 2  #: rank of the priority level, 0 = urgent


class ExchangeReply(Wire):
    """What the worker is to start, and which of its attempts to stop."""

    claims: list[ClaimedJob] = []
    cancels: list[tuple[str, int]] = []
    overtaken: bool = False  #: a later call of this worker arrived first, so that only the outcomes counted
    more: bool = False  #: there was no room for all that was granted: the worker is to ask for the rest at once


# --- client <-> queue: events and lookups -----------------------------------------------------------------------------


class Event(Wire):
    """One visible change, mostly of one job. ``number`` grows without gaps over the life of the journal."""

    number: int
    name: str  #: "job:completed" …
    at: float
    job_id: str
    owner: str
    status: str
    type: str
    provider: str
    model: str
    level: int
    attempt: int
    created_at: float
    started_at: float
    sla_ms: int
    batch_id: str = ""
    worker_id: str = ""
    result: bytes = b""
    failure: Failure | None = None
    retry_count: int = 0  #: failed attempts that were followed by another one
    gate: str = ""  #: "provider/model" of gate:closed and gate:opened, which are about no job
    until: float = 0.0  #: gate:closed: when it opens by itself
    reason: str = ""
    since: float = 0.0  #: when the clock of the job's SLA started
    data: bytes = b""  #: JSON object of what was announced, and is about no job


RESTARTED = "queue:restarted"  #: announced by the queue itself, with the reason as its data
#: Events that others than the engine may announce.
_OF_POOLS = ("scaled-up", "scaled-down", "worker-unhealthy", "worker-replaced", "without-workers")
ANNOUNCED = frozenset(f"worker-pool:{what}" for what in _OF_POOLS)
END_EVENTS = frozenset({"job:completed", "job:failed", "job:dead-letter", "job:cancelled", "job:expired"})
END_STATES = frozenset({"completed", "failed", "dead_letter", "cancelled", "expired"})


class SubmitReply(Wire):
    """One entry per group of the call; None means accepted and on disk.

    ``events``: the ends of its jobs, where the call was asked to linger for them and they came in time.
    """

    groups: list[Refusal | None]
    events: list[Event] = []
    known: dict[int, str] = {}  #: by group: the job that was accepted before under the same idempotency key


class EventsCall(Wire):
    """A client process's long poll on the event log."""

    client_id: str
    after: int  #: number of the last event seen
    names: list[str] = []  #: empty: all names
    all_owners: bool = False  #: False: only jobs that this client submitted, and those in ``watching``
    watching: list[str] = []
    limit: int = 5_000
    wait_s: float = 20.0
    also: list[str] = []  #: names of events wanted besides, whatever they are about


class EventsReply(Wire):
    """Events in order, about 4 MiB of them at most.

    ``gap``: some between ``after`` and the first of these are gone; look the jobs up instead.
    """

    events: list[Event]
    after: int  #: cursor for the next call
    gap: bool = False


class JobView(Wire):
    """A job as ``get_jobs`` shows it."""

    id: str
    header: JobHeader
    status: str
    sla_ms: int
    attempt: int = 0
    retries: int = 0
    crashes: int = 0
    worker_id: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    run_at: float = 0.0
    failure: Failure | None = None
    result: bytes = b""
    payload: bytes = b""
    attempts: list[bytes] = []  #: AttemptRecords of the attempts after which the job went on
    successor: str = ""  #: the job that was put in its place when it had failed


class DeadLettersCall(Wire):
    """Which dead letters to list: the newest first, after those already seen."""

    before_seq: int = 2**62
    limit: int = 100
    kind: str = ""  #: of the error that ended them
    model: str = ""
    tag: str = ""
    since: float = 0.0  #: ended after this time


class DeadLettersReply(Wire):
    """Dead letters, and where the next page begins (0: there is none)."""

    jobs: list[JobView]
    before_seq: int


class CancelReply(Wire):
    """What a cancel did to one job: ``status`` is its state afterwards, empty where no such job is known."""

    job_id: str
    cancelled: bool
    status: str


class ProviderEntry(Wire):
    """What a client must know of a configured provider to validate a payload."""

    name: str
    kind: str
    job_types: tuple[str, ...]
    models: tuple[str, ...] = ()  #: empty: any model


class Welcome(Wire):
    """Answer to a client's hello: what it needs to validate jobs, and where the event log stands."""

    last_event: int
    providers: list[ProviderEntry]
    max_payload_bytes: int
    sla_ms: tuple[int, ...]  #: by rank
    shards: int = 1
    max_retries: int = 3  #: of a job that does not say
    max_metadata_bytes: int = 16 * 2**10
    version: Version = Version()  #: what the queue runs
    journal: JournalInfo | None = None
    pools_without_workers: tuple[str, ...] = ()  #: that should have some


encode = msgspec.msgpack.Encoder().encode

decode_submit_reply = msgspec.msgpack.Decoder(SubmitReply).decode
decode_exchange_call = msgspec.msgpack.Decoder(ExchangeCall).decode
decode_exchange_reply = msgspec.msgpack.Decoder(ExchangeReply).decode
decode_events_call = msgspec.msgpack.Decoder(EventsCall).decode
decode_events_reply = msgspec.msgpack.Decoder(EventsReply).decode
decode_views = msgspec.msgpack.Decoder(list[JobView | None]).decode
decode_dead_letters_call = msgspec.msgpack.Decoder(DeadLettersCall).decode
decode_dead_letters_reply = msgspec.msgpack.Decoder(DeadLettersReply).decode
decode_cancel_replies = msgspec.msgpack.Decoder(list[CancelReply]).decode
decode_spec = msgspec.msgpack.Decoder(BatchSpec).decode
decode_ids = msgspec.msgpack.Decoder(list[str]).decode
decode_header = msgspec.msgpack.Decoder(JobHeader).decode
decode_welcome = msgspec.msgpack.Decoder(Welcome).decode
decode_any: Any = msgspec.msgpack.Decoder().decode


def header_of(body: bytes) -> JobHeader | None:
    """Return a header; None for one that can't be decoded."""
    try:
        return decode_header(body)
    except ValueError:  # no MessagePack, no header, or no UTF-8
        return None
