"""The queue: what the queue actor answers, on one event loop.

Every mutation is one synchronous step (engine, rows to the writer), and only then a wait for the disk. So a caller
that is cancelled cuts nothing in half, and no lock is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from aiqueue.config import Settings
from aiqueue.engine import (
    Announce,
    Cancel,
    QueueEngine,
    Tick,
)
from aiqueue.engine.commands import Command
from aiqueue.errors import QueueUnavailable
from aiqueue.journal.base import Journal
from aiqueue.journal.writer import GroupCommitWriter, WriterMaker
from aiqueue.journal_info import JournalInfo
from aiqueue.own_version import own_version
from aiqueue.pools import scaling_rule
from aiqueue.protocol import (
    ANNOUNCED,
    RESTARTED,
    CancelReply,
    Event,
    EventsCall,
    EventsReply,
    ExchangeCall,
    ExchangeReply,
    JobView,
    ProviderEntry,
    Refusal,
    SubmitGroup,
    SubmitReply,
    Welcome,
)
from aiqueue.providers.registry import job_types_of
from aiqueue.scaling import PoolLoad
from aiqueue.service import statistics
from aiqueue.service.batches import BatchDesk
from aiqueue.service.clock import Clock, SteadyClock
from aiqueue.service.commits import CommitPipeline, Committed
from aiqueue.service.dead_letters import DeadLetters
from aiqueue.service.drops import Drops
from aiqueue.service.empty_pools import WITHOUT_WORKERS, EmptyPools
from aiqueue.service.event_log import EventLog
from aiqueue.service.faults import FaultBook, hash_of
from aiqueue.service.holds import Holds
from aiqueue.service.intake import Intake
from aiqueue.service.look_ups import LookUps
from aiqueue.service.next_tries import NextTries, has_live_next_try
from aiqueue.service.payload_cache import PayloadCache
from aiqueue.service.pool_loads import collect_loads
from aiqueue.service.recovery import load_engine
from aiqueue.service.retention import Retention
from aiqueue.service.schedules import ScheduleDesk
from aiqueue.service.shown_times import show_events
from aiqueue.service.steps import Steps
from aiqueue.service.successors import Successors
from aiqueue.service.ticking import Ticker
from aiqueue.service.worker_desk import WorkerDesk
from aiqueue.views import PoolStats, Stats, moment

_PAUSE_S = 5.0  # no tick for that long: this process was suspended, and its workers could not be heard
_WAKE = hash_of("wake")
_MAX_ANNOUNCED = 4_096  # bytes of an announced event's data
_CANCELLED_AT_ONCE = 500  # jobs, in one step of the loop


class QueueService:
    """Make one inside a running event loop; ``close`` it to commit what is pending."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        *,
        engine: QueueEngine | None = None,
        info: JournalInfo | None = None,
        clock: Clock | None = None,
        writer: WriterMaker = GroupCommitWriter,
        restarted: bool = False,
        end: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._journal, self._info = journal, info
        self._clock = clock or SteadyClock()
        self._engine = engine or load_engine(settings, journal, self._clock)
        self._log = EventLog(next_number=self._engine.core.counters.next_event)
        self._recent = statistics.RecentTimes()
        self._faults = FaultBook(journal, self._clock, restarted=restarted, end=end)
        self._closed = False
        self._commits = commits = CommitPipeline(
            journal, self._publish, writer=writer, on_fault=self._faults.trip, check_open=self._check_open
        )
        holds = Holds(self._is_needed)
        successors, next_tries = Successors(self._engine, journal, commits), NextTries(journal, commits)
        self._drops = drops = Drops(self._engine, journal, commits)
        taken = self._faults.taken_ids()
        self._intake = Intake(self._apply, self._engine, journal, self._commits, self._clock, taken, holds, drops)
        self._retention = self._make_retention(holds, successors, next_tries)
        self._look_ups = LookUps(self._engine, journal, commits, drops)
        self.dead_letters = DeadLetters(
            journal, self._commits, self._look_ups, successors, next_tries, is_needed=holds.needed
        )
        self.schedules = ScheduleDesk(self._apply, self._engine, journal, self._commits, self._clock)
        self.batches = BatchDesk(
            self._apply, self._engine, journal, self._commits, self._clock, self._look_ups, holds, drops
        )
        payloads = PayloadCache(settings.journal.payload_cache_bytes)
        self._step = Steps(self._engine, self._commits, payloads, self._clock, self._faults).step
        self._workers = WorkerDesk(
            self._apply, self._step, self._engine, journal, self._clock, payloads, commits, park_s=settings.lease.poll_s
        )
        self._empty_pools = EmptyPools(
            [pool for pool in settings.pools if scaling_rule(settings, pool).min_workers > 0]
        )
        self._ticker = Ticker(self._engine, self._clock, self._faults, self._tick)
        self._begin()

    def _make_retention(self, holds: Holds, successors: Successors, next_tries: NextTries) -> Retention:
        live = self._engine.core.live
        return Retention(
            self._settings.retention,
            self._journal,
            self._commits,
            self._clock,
            lambda: len(live),
            holds.needed,
            successors.followed,
            next_tries.kept,
        )

    def _begin(self) -> None:
        """Say that this process came after one that ended, and end the jobs that it goes on without."""
        if self._engine.aside.rows and not self._faults.had("EndAside"):
            self._apply(self._engine.aside)
        if self._faults.restart is not None and not self._faults.had("Announce"):
            restarts, _, reason = self._faults.restarts
            said = msgspec.json.encode({"reason": reason, "restarts": restarts})
            self._log.restart, _ = self._apply(Announce(RESTARTED, said))
        self._ticker.arm()

    def welcome(self) -> Welcome:
        """Return what a client must know to begin. Raises QueueUnavailable."""
        self._check_open()
        providers = [
            ProviderEntry(name, entry.kind, job_types_of(entry.kind), entry.models)
            for name, entry in self._settings.providers.items()
        ]
        limits, slas = self._settings.limits, self._settings.sla_by_rank()
        welcome = Welcome(self._log.last, providers, limits.max_payload_bytes, slas)
        welcome.max_retries = self._settings.dead_letter.max_retries
        welcome.max_metadata_bytes = limits.max_metadata_bytes
        welcome.journal, welcome.pools_without_workers = self._info, self._empty_pools.names
        welcome.version = own_version()
        return welcome

    async def submit(self, groups: Sequence[SubmitGroup]) -> list[Refusal | None]:
        """Accept groups of jobs, each whole or not at all; answer when they are on disk.

        Raises JournalUnavailable while nothing can be written.
        """
        return (await self.submit_and_linger(groups, 0.0)).groups

    async def submit_and_linger(self, groups: Sequence[SubmitGroup], linger_s: float) -> SubmitReply:
        """As ``submit``; then wait up to ``linger_s`` for the ends of the jobs, to send them along."""
        self._commits.check()
        reply = await self._intake.submit(groups)
        jobs = [job for group in groups for job in group.jobs]
        if linger_s and jobs and not any(reply.groups):
            reply.events = await self._log.linger(jobs[0].header.owner, [job.id for job in jobs], linger_s)
        return reply

    async def exchange(self, call: ExchangeCall) -> ExchangeReply:
        """Take a worker's outcomes and give it work; wait for some where there is none."""
        return await self._workers.exchange(call)

    async def events(self, call: EventsCall) -> EventsReply:
        """Long poll on the event log."""
        self._check_open()
        return await self._log.poll(call)

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        """Return jobs as they are on disk, in the order of ``ids``; None for those unknown.

        Of many large ones it returns the first: the caller asks for the others next.
        """
        self._check_open()
        return await self._look_ups.get(ids, with_payload=with_payload)

    async def cancel(self, ids: Sequence[str]) -> list[CancelReply]:
        """Stop jobs. For one that has ended already, ``status`` is its end; for one unknown it is empty."""
        replies: list[CancelReply] = []
        for at in range(0, len(ids), _CANCELLED_AT_ONCE):
            some, committed = self._apply(Cancel(ids[at : at + _CANCELLED_AT_ONCE]))
            replies += some
            await asyncio.shield(committed)
        ended = [reply.job_id for reply in replies if not reply.status]
        states = await self.batches.states(ended) if ended else []
        for reply, state in zip((r for r in replies if not r.status), states, strict=True):
            reply.status = state
        return replies

    async def lose_worker(self, worker_id: str, reason: str, *, crashed: bool) -> int:
        """Take back what a dead worker held; return how many jobs that were. ``crashed``: see LoseWorker."""
        return await self._workers.lose(worker_id, reason, crashed=crashed)

    async def announce(self, name: str, data: Mapping[str, Any]) -> int:
        """Put an event that is about no job into the log, in its order; return its number when it is on disk.

        ``name`` is one of ``protocol.ANNOUNCED``; ``data`` becomes JSON (snake_case keys, as Python listeners see
        them). Raises ValueError for another name or for more than 4 KiB of data.
        """
        if name not in ANNOUNCED:
            raise ValueError(f"unknown event {name!r}; what can be announced: {', '.join(sorted(ANNOUNCED))}")
        body = msgspec.json.encode(data)
        if len(body) > _MAX_ANNOUNCED:
            raise ValueError(f"the data of {name} has {len(body)} bytes; at most {_MAX_ANNOUNCED} are kept in the log")
        number, committed = self._apply(Announce(name, body))
        await asyncio.shield(committed)
        return int(number)

    def commit_waits_s(self) -> float:
        """Return for how long a commit has been waiting for a disk that neither succeeds nor fails."""
        return self._commits.waits_s()

    async def counted_stats(self) -> Stats:
        """Return the queue's statistics, with the dead letters that are on disk now."""
        return self.stats(dead_letters=await self.dead_letters.count())

    def stats(self, *, dead_letters: int = 0) -> Stats:
        """Return what the engine knows of the queue's statistics."""
        found = statistics.collect(
            self._engine.core,
            self._recent,
            now=self._clock.now(),
            dead_letter_queue=self._settings.dead_letter.queue_name,
            dead_letters=dead_letters,
        )
        restarts, at, reason = self._faults.restarts
        found.adapter.restarts, found.adapter.restarted_at, found.adapter.restart_reason = restarts, moment(at), reason
        found.adapter.journal, without = self._info, self._empty_pools.names
        found.adapter.pools = [
            PoolStats(pool=pool, workers=len(load.held), without_workers=pool in without)
            for pool, load in self.pool_loads().items()
        ]
        return found

    def pool_loads(self) -> dict[str, PoolLoad]:
        """Return how much work there is for each pool."""
        settings = self._settings
        core, now = self._engine.core, self._clock.now()
        return collect_loads(core, self._recent, settings.pools, settings.pool_of, now=now)

    async def look_at_pools(self) -> None:
        """Tell of each pool that should have workers and has had none for a minute. To be called every few seconds."""
        loads = self.pool_loads()
        for pool in self._empty_pools.look(loads, now=self._clock.now()):
            await self.announce(WITHOUT_WORKERS, {"pool": pool, "queued_jobs": sum(loads[pool].queued)})

    async def close(self) -> None:
        """Send all waiting polls home, commit what is pending and close the journal. What is asked later is refused."""
        self._closed = True
        self._ticker.close()
        self._workers.close()
        self._log.close()
        self._drops.close()
        self.batches.close()
        await self._retention.close()
        await self._commits.close()
        self._journal.close()

    def _is_needed(self, job_id: str) -> bool:
        """Return True if a job that has not ended needs this one, or is the next try of it."""
        return self._engine.core.links.is_needed(job_id) or has_live_next_try(self._engine, job_id)

    def _check_open(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is being stopped")
        if self._faults.failed:
            raise QueueUnavailable("the queue met a fault, and starts again from its journal")

    def _apply(self, command: Command) -> tuple[Any, Committed]:
        self._check_open()
        done = self._step(command)
        try:
            if self._faults.is_empty() or not self._faults.put_off_s(_WAKE):
                self._workers.wake()
            self._ticker.arm()
        except QueueUnavailable:
            raise
        except Exception as error:
            self._faults.trip("giving work to workers", error, [_WAKE], alone=True)
            raise QueueUnavailable("the queue met a fault, and starts again from its journal") from error
        return done

    def _publish(self, events: list[Event]) -> None:
        self._recent.observe(events)
        self.batches.observe(events)
        show_events(events, self._engine.core.ahead_s)
        self._log.publish(events)

    def _tick(self, pause_s: float) -> Committed:
        _, committed = self._apply(Tick(pause_s if pause_s > _PAUSE_S else 0.0, self._clock.ahead_s()))
        self._retention.tick()
        self._drops.tick()
        self.batches.tick()
        return committed
