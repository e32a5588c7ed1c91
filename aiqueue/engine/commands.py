"""What can be asked of the engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiqueue.engine.batch_records import StoredBatch
from aiqueue.engine.records import StoredRow
from aiqueue.engine.schedule_records import ScheduleSpec
from aiqueue.protocol import BatchSpec, Outcome, Submission, SubmitGroup

if TYPE_CHECKING:
    from aiqueue.engine.prepared import Prepared


@dataclass(frozen=True, slots=True)
class Submit:
    """Accept groups of jobs, each whole or not at all. Reply: ``list[Refusal | None]``.

    ``journaled``: for ids that the journal already holds, whether their body is the same as the one submitted now.
    ``digests``: of the bodies of jobs that carry an idempotency key, by job id; kept with the key.
    ``ended``: the states of ended jobs that these ones need, by id.
    ``batches``: ids of batches that the journal has, of those submitted now.
    ``repeated``: the dead letters that these jobs repeat: seq, state and Progress in the journal, by id.
    ``prepared``: large groups that were made ready beforehand, by ``id()`` of the group.
    """

    groups: Sequence[SubmitGroup]
    journaled: Mapping[str, bool] = field(default_factory=dict)
    digests: Mapping[str, bytes] = field(default_factory=dict)
    ended: Mapping[str, str] = field(default_factory=dict)
    batches: Set[str] = frozenset()
    prepared: Mapping[int, Prepared] = field(default_factory=dict)
    repeated: Mapping[str, tuple[int, str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A worker reports and asks for work. Reply: ``Granted``.

    ``running``: every attempt the worker holds; what it was given beside these is given again. ``draw``: a random
    number in [0, 1) for jitter. ``urgent_slots``: of its slots, for jobs of the first level only. ``most``: jobs it
    takes from one answer, 0: any number. ``number``: of the worker's calls. Of one that arrives behind a later one only
    the outcomes count, since the worker may not read its answer. ``claims``: False: it is given nothing new.
    """

    worker_id: str
    pool: str
    slots: int
    outcomes: Sequence[Outcome] = ()
    running: Sequence[tuple[str, int]] | None = None
    draw: float = 0.0
    urgent_slots: int = 0
    most: int = 0
    number: int = 0
    claims: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """A worker reports and asks for no work; its leases go on.

    ``running``: as in an Exchange. Reply: ``Granted``, empty if ``running`` is None.
    """

    worker_id: str
    outcomes: Sequence[Outcome] = ()
    draw: float = 0.0
    running: Sequence[tuple[str, int]] | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker that waits is given up to ``most`` jobs, and what it is to stop. Reply: ``Granted``."""

    worker_id: str
    most: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop jobs. Reply: ``list[CancelReply]``, status empty for ids that are not live."""

    job_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class LoseWorker:
    """A worker is known to be dead: its leases go back to the queue. Reply: number of jobs it held.

    ``crashed``: its process ended or hung by itself, so a job may have caused it. False: its machine was lost, somebody
    stopped it, or nobody knows.
    """

    worker_id: str
    reason: str
    crashed: bool = True


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: retries come due, silent workers lose their leases. Reply: None.

    ``pause_s``: for how long the queue itself was stopped (a suspended process); nobody could be heard meanwhile.
    ``ahead_s``: of the machine's clock, which people set and schedules follow, before the queue's, which never jumps.
    """

    pause_s: float = 0.0
    ahead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AddSchedule:
    """Take a schedule. Reply: its id (of the one that is there, if it says the same), or a Refusal.

    ``key``: an idempotency key that was not used before, to be kept with the ``digest`` of what was asked.
    """

    spec: ScheduleSpec
    key: str = ""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class ChangeSchedule:
    """``pause``, ``resume`` or ``remove`` the schedule of this id or name. Reply: its id, or a Refusal."""

    schedule: str
    action: str


@dataclass(frozen=True, slots=True)
class RunSchedule:
    """Start a job of the schedule of this id or name now. Reply: the schedule's id, or a Refusal."""

    schedule: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Something happened outside the engine that listeners shall hear of in its order. Reply: the event's number."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Steer:
    """Do to a live batch what ``action`` says (see BatchCall). Reply: a Refusal, or None."""

    batch_id: str
    action: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class Retry:
    """Put new jobs into a batch in the place of some that did not complete. Reply: a Refusal, or None.

    ``number``, ``spec`` and ``stored`` are the batch as the journal has it, for one that has ended; ``replaced`` says
    which jobs get a successor, in the order of ``jobs``: seq, terminal state and Progress. ``metadata`` is that of all
    of these jobs, where it is equal.
    """

    number: int
    spec: BatchSpec
    stored: StoredBatch
    replaced: Sequence[tuple[int, str, bytes]]
    jobs: Sequence[Submission]
    ended: Mapping[str, str] = field(default_factory=dict)
    metadata: bytes = b""


@dataclass(frozen=True, slots=True)
class EndAside:
    """End jobs as failed that were not loaded from the journal. Reply: None."""

    rows: Sequence[StoredRow]
    unreadable: Collection[int] = ()  #: seqs of jobs whose own row, or whose batch's row, can't be decoded
    #: Batch ids by seq, of jobs whose headers can't be decoded.
    batch_of: Mapping[int, str] = field(default_factory=dict)


JobCommand = Submit | Exchange | Report | Claim | Cancel | LoseWorker | Tick
Command = JobCommand | Steer | Retry | AddSchedule | ChangeSchedule | RunSchedule | Announce | EndAside
